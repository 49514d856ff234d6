"""Sorts the suffixes of documents by induced sorting, in linear time.

A suffix is of type S where it is smaller than the one behind it, of type L where it is larger. An S behind an L is
leftmost (LMS). Sorted LMS suffixes give the order of all L in a walk up, and those give the order of all S in a walk
down. LMS suffixes are sorted by the same means, as suffixes of a text with one number for each piece between two of
them.

A letter of the text is 2 c + 1 where the suffix that begins there is of type S, and 2 c where it is of type L, so one
look gives both; in sorted order L come before S of the same c, so a bucket is one value of a letter.

Source: Nong, Zhang, Chan, Two efficient algorithms for linear time suffix array construction, 2011.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pythia_gguf.kernels.jit import inlined, kernel
from pythia_gguf.progress import Progress

# A walk comes back to Python after so many places, for Ctrl-C and progress.
_AT_ONCE = 1 << 24
_EMPTY = -1
MOST_NUMBERS = (1 << 31) - 1
# Behind every document stands an end, and behind all of them the smallest number.
_END, _FIRST_ID = 1, 2
# Walks over all places that report progress.
_WALKS = 4


def sort_documents(ids: np.ndarray, sizes: np.ndarray, progress: Progress) -> np.ndarray:
    """The places of all ids in the order of the suffixes that begin there and end with their document, i32 [n].

    A suffix that is the beginning of another one comes before it; the order of equal ones is the same in every run.

    ids       u16 [n]
    sizes     ids of each document, none of them 0; their sum is n
    progress  hears of places
    Raises    ValueError for other arrays
    """
    for array, kind in ((ids, np.uint16), (sizes, np.int32)):
        if array.dtype != kind or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError(f"expected contiguous {kind.__name__} of one axis, got {array.dtype} {array.shape}")
    n_numbers = ids.size + sizes.size + 1
    if n_numbers > MOST_NUMBERS or (sizes < 1).any() or int(sizes.sum(dtype=np.int64)) != ids.size:
        raise ValueError(f"{sizes.size} sizes do not divide {ids.size} ids, or there are too many")
    numbers = np.empty(n_numbers, np.int32)
    _lay_out(ids, sizes, numbers)
    places = np.empty(n_numbers, np.int32)
    progress.stage("sorting", _WALKS * n_numbers, "places")
    _sort(numbers, _FIRST_ID + (1 << 16), places, progress)
    _count_ids_before(numbers)
    places = places[n_numbers - ids.size :]
    for first, last in _spans(places.size):
        _translate(numbers, places[first:last])
    return places


def _sort(text: np.ndarray, n_letters: int, places: np.ndarray, progress: Progress | None) -> None:
    """Sort into `places`; `progress` is for the outermost text alone."""
    n = text.size
    if n == 1:
        places[0] = 0
        return
    _note_types(text)
    counts = np.zeros(2 * n_letters, np.int32)
    _count(text, counts)
    # 1. LMS suffixes anywhere in their buckets, then both walks: pieces between LMS places are sorted.
    places[:] = _EMPTY
    _place_lms(text, np.cumsum(counts, dtype=np.int32), places)
    _walk(text, counts, places, progress)
    # 2. A number for each piece, in the order of the text: the reduced text, at the end of `places`.
    n_lms = _gather_lms(text, places)
    places[n_lms:] = _EMPTY
    n_names = _name_pieces(text, n_lms, places)
    reduced = places[n - n_lms :]
    _gather_names(places, n_lms)
    # 3. The order of its suffixes is that of the LMS suffixes.
    if n_names < n_lms:
        _sort(reduced, n_names, places[:n_lms], None)
    else:
        _invert(reduced, places)
    # 4. Numbers of pieces become places again. Each goes to its bucket, in order, and both walks give the rest.
    _list_lms(text, reduced)
    _translate(reduced, places[:n_lms])
    places[n_lms:] = _EMPTY
    _spread_lms(text, n_lms, np.cumsum(counts, dtype=np.int32), places)
    _walk(text, counts, places, progress)


def _walk(text: np.ndarray, counts: np.ndarray, places: np.ndarray, progress: Progress | None) -> None:
    """Both walks, some places at a time."""
    bounds = np.cumsum(counts, dtype=np.int32)
    bounds -= counts
    for first, last in _spans(text.size):
        _walk_up(text, bounds, places, first, last)
        if progress is not None:
            progress.advance("up", last - first)
    np.cumsum(counts, dtype=np.int32, out=bounds)
    for first, last in reversed(list(_spans(text.size))):
        _walk_down(text, bounds, places, first, last)
        if progress is not None:
            progress.advance("down", last - first)


def _spans(n: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, _AT_ONCE):
        yield first, min(first + _AT_ONCE, n)


@kernel
def _lay_out(ids, sizes, numbers):
    """Documents with an end behind each."""
    i = to = 0
    for d in range(sizes.size):
        for _ in range(sizes[d]):
            numbers[to] = ids[i] + _FIRST_ID
            i += 1
            to += 1
        numbers[to] = _END
        to += 1
    numbers[to] = 0


@kernel
def _count_ids_before(letters):
    """Each letter becomes the number of ids before it."""
    n = 0
    for i in range(letters.size):
        is_id = letters[i] >= 2 * _FIRST_ID
        letters[i] = n
        if is_id:
            n += 1


@inlined
def _is_lms(text, i):
    """Whether an S begins at a place behind an L."""
    return i > 0 and text[i] & 1 == 1 and text[i - 1] & 1 == 0


@kernel
def _note_types(text):
    """Letters c to 2 c + type, from the end on; the last suffix is the smallest, of type S."""
    n = text.size
    after, is_s = text[n - 1], 1
    text[n - 1] = 2 * after + 1
    for i in range(n - 2, -1, -1):
        c = text[i]
        if c != after:
            is_s = 1 if c < after else 0
        text[i] = 2 * c + is_s
        after = c


@kernel
def _count(text, counts):
    """How often each letter is there."""
    for i in range(text.size):
        counts[text[i]] += 1


@kernel
def _place_lms(text, ends, places):
    """Each LMS place into its bucket, from the end of that; `ends` go down."""
    for i in range(text.size - 1, 0, -1):
        if _is_lms(text, i):
            ends[text[i]] -= 1
            places[ends[text[i]]] = i


@kernel
def _walk_up(text, heads, places, first, last):
    """From each sorted suffix to the one before it, where that is an L: it is the next in its bucket."""
    for i in range(first, last):
        j = places[i] - 1
        if j >= 0 and text[j] & 1 == 0:
            places[heads[text[j]]] = j
            heads[text[j]] += 1


@kernel
def _walk_down(text, ends, places, first, last):
    """The same for S, from the largest suffix on; they replace the LMS suffixes that were in their buckets."""
    for i in range(last - 1, first - 1, -1):
        j = places[i] - 1
        if j >= 0 and text[j] & 1 == 1:
            ends[text[j]] -= 1
            places[ends[text[j]]] = j


@kernel
def _gather_lms(text, places):
    """LMS places in their order to the front; returns how many there are."""
    n = 0
    for i in range(text.size):
        j = places[i]
        if _is_lms(text, j):
            places[n] = j
            n += 1
    return n


@inlined
def _is_same_piece(text, a, b):
    """Whether the letters from two LMS places to the next ones are the same; the text ends with a letter of its own."""
    if text[a] != text[b]:
        return False
    i = 1
    while text[a + i] == text[b + i]:
        ends_a, ends_b = _is_lms(text, a + i), _is_lms(text, b + i)
        if ends_a or ends_b:
            return ends_a and ends_b
        i += 1
    return False


@kernel
def _name_pieces(text, n_lms, places):
    """A number for each sorted piece, the same for the same ones, at half its place behind them; returns how many.

    Two LMS places are never neighbours, so halves do not collide.
    """
    name, before = -1, -1
    for i in range(n_lms):
        j = places[i]
        if before < 0 or not _is_same_piece(text, before, j):
            name += 1
        places[n_lms + j // 2] = name
        before = j
    return name + 1


@kernel
def _gather_names(places, n_lms):
    """Numbers of pieces, in the order of the text, to the end."""
    to = places.size - 1
    for i in range(places.size - 1, n_lms - 1, -1):
        if places[i] >= 0:
            places[to] = places[i]
            to -= 1


@kernel
def _invert(reduced, places):
    """The order of a text in which each number is there once."""
    for i in range(reduced.size):
        places[reduced[i]] = i


@kernel
def _list_lms(text, reduced):
    """LMS places in the order of the text."""
    n = 0
    for i in range(text.size):
        if _is_lms(text, i):
            reduced[n] = i
            n += 1


@kernel
def _translate(table, places):
    """Each place by a table."""
    for i in range(places.size):
        places[i] = table[places[i]]


@kernel
def _spread_lms(text, n_lms, ends, places):
    """Sorted LMS places from the front to the ends of their buckets, the last first: none is written over."""
    for i in range(n_lms - 1, -1, -1):
        j = places[i]
        places[i] = -1
        ends[text[j]] -= 1
        places[ends[text[j]]] = j
