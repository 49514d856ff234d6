"""Beginnings that several lists of tokens have in common. What is read of them once serves all."""

from __future__ import annotations

from collections.abc import Sequence


def n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
