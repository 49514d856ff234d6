"""Suffixes of documents come in the order in which Python sorts them, each place once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_gguf.kernels import suffixes
from pythia_gguf.kernels.suffixes import sort_documents
from pythia_gguf.progress import Silence


def check(documents: list[list[int]]) -> None:
    """Each place is there once, and its suffix is not smaller than the one before: compared as big-endian bytes."""
    ids, sizes = np.array([i for d in documents for i in d], np.uint16), np.array([*map(len, documents)], np.int32)
    places = sort_documents(ids, sizes, Silence())
    assert places.dtype == np.int32
    assert np.array_equal(np.sort(places), np.arange(ids.size))
    ends = np.repeat(np.cumsum(sizes), sizes)
    data = ids.astype(">u2").tobytes()
    sorted_suffixes = (data[2 * p : 2 * ends[p]] for p in places)
    before = b""
    for suffix in sorted_suffixes:
        assert before <= suffix
        before = suffix


@given(
    documents=st.integers(0, 4).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, k) | st.just(65535), min_size=1, max_size=30), max_size=8)
    ),
    at_once=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_suffixes_are_sorted(documents: list[list[int]], at_once: int):
    """Whatever the number of places after which a walk comes back to Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suffixes, "_AT_ONCE", at_once)
        check(documents)


def test_long_repeats_are_sorted_too():
    """Reduced texts of reduced texts, and of a text that is one letter, or two in turn."""
    rng = np.random.default_rng(3)
    repeated = rng.integers(0, 300, 2000).tolist()
    fibonacci = [[1], [0]]
    while len(fibonacci[-1]) < 1500:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    check([repeated, rng.integers(0, 9, 3000).tolist(), repeated[500:], [5] * 2000, [1, 2] * 900, fibonacci[-1]])


@pytest.mark.parametrize(
    ("ids", "sizes"),
    [
        (np.zeros(3, np.int32), np.array([3], np.int32)),
        (np.zeros(6, np.uint16)[::2], np.array([3], np.int32)),
        (np.zeros(3, np.uint16), np.array([2], np.int32)),
        (np.zeros(3, np.uint16), np.array([3, 0], np.int32)),
        (np.zeros(3, np.uint16), np.array([4, -1], np.int32)),
        (np.zeros(3, np.uint16), np.array([3], np.int64)),
    ],
)
def test_other_arrays_are_refused_before_a_kernel_sees_them(ids: np.ndarray, sizes: np.ndarray):
    with pytest.raises(ValueError, match="expected contiguous u?int|sizes do not divide"):
        sort_documents(ids, sizes, Silence())
