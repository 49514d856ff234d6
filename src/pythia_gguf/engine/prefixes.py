"""Beginnings that several lists of tokens have in common; a model reads such a beginning once for all of them."""

from __future__ import annotations

from collections.abc import Sequence


def n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
