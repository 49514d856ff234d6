"""Quants, mixes and plans: which tensor gets which format, with the reason. Pure data."""
