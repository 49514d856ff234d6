"""Texts as sets of shingles: what every five words that follow one another hash to.

    words      runs of letters, digits and "_"; any other visible character is a word of its own
    letters    also all from U+0080 to U+07FF, which UTF-8 writes in two bytes: accents, Greek, Cyrillic, Arabic
    shingles   five words; a text of fewer words has one shingle, which is all of them

A character that UTF-8 writes in three or four bytes is a word of its own: Chinese puts no spaces between its words.
White space counts for nothing, the case of letters and punctuation do. Hashes are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WORDS = 5
_U64 = np.uint64
# Bytes that are hashed at once; a longer text is cut at a word, from its own beginning on.
_BLOCK_BYTES = 1 << 18
_SPACE, _RUN, _ALONE, _INSIDE = range(4)
# Odd, and 3 modulo 8: differences of its powers keep nearly all of their bits.
_BASE, _INVERSE = 0x9E3779B97F4A7C1B, pow(0x9E3779B97F4A7C1B, -1, 1 << 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shingles:
    """Shingles of some texts, one after the other.

    hashes  u64 of each, in their order, repeated where the text repeats itself
    starts  where those of each text begin; at the end their number
    words   u64 for each text: equal for texts of the same words
    """

    hashes: np.ndarray
    starts: np.ndarray
    words: np.ndarray

    def sets(self) -> list[np.ndarray]:
        """For each text its different shingles, sorted."""
        return [np.unique(self.hashes[a:b]) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]


def shingles_of(texts: list[str]) -> Shingles:
    """The shingles of some texts."""
    hashes, counts = _words_of([text.encode("utf-8") for text in texts])
    ends = np.cumsum(counts)
    # 1. What any five words in a row hash to, across texts too: each word counts by its place.
    rows = np.concatenate((hashes, np.zeros(WORDS, _U64)))
    made = rows[:-WORDS].copy()
    for place in range(1, WORDS):
        made *= _U64(_BASE)
        made += rows[place : place - WORDS]
    # 2. A shingle begins at every word that has four more behind it in its text; a shorter text has one.
    n_shingles = np.maximum(counts - (WORDS - 1), 1)
    starts = np.concatenate(([0], np.cumsum(n_shingles)))
    begins = np.arange(starts[-1]) + np.repeat(ends - counts - starts[:-1], n_shingles)
    made = np.append(made, _U64(0))[np.minimum(begins, len(hashes))]
    # 3. That one is all of its words.
    totals = np.zeros(len(hashes) + 1, _U64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=totals[1:])
    words = (totals[ends] - totals[ends - counts]) * _powers(_INVERSE, len(totals))[ends - counts]
    is_short = counts < WORDS
    made[starts[:-1][is_short]] = words[is_short]
    return Shingles(hashes=mixed(made), starts=starts, words=mixed(words + counts.astype(_U64)))


def _words_of(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words, and how many each text has."""
    hashes, counts = [np.zeros(0, _U64)], np.zeros(len(texts), np.int64)
    for first, block in _blocks(texts):
        some, n_words = _hash_block(block)
        hashes.append(some)
        counts[first : first + len(block)] += n_words
    return np.concatenate(hashes), counts


def _blocks(texts: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first text, texts) of about _BLOCK_BYTES together; a longer text comes alone, in parts."""
    first, n_bytes = 0, 0
    for i, text in enumerate(texts):
        if i > first and n_bytes + len(text) > _BLOCK_BYTES:
            yield first, texts[first:i]
            first, n_bytes = i, 0
        if len(text) > _BLOCK_BYTES:
            yield from ((i, [part]) for part in _parts(text))
            first = i + 1
        else:
            n_bytes += len(text)
    if first < len(texts):
        yield first, texts[first:]


def _parts(text: bytes) -> Iterator[bytes]:
    """A long text, cut at white space where there is any, otherwise between characters."""
    at = 0
    while len(text) - at > _BLOCK_BYTES:
        end = max(text.rfind(white, at + 1, at + _BLOCK_BYTES) for white in (b" ", b"\n"))
        if end < 0:
            end = at + _BLOCK_BYTES
            while text[end] & 0xC0 == 0x80:
                end -= 1
        yield text[at:end]
        at = end
    yield text[at:]


def _hash_block(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words of some texts, and how many each text has."""
    joined = b" ".join(texts) + b" "
    data = np.frombuffer(joined, np.uint8)
    kinds = np.frombuffer(bytearray(joined.translate(_KIND_OF)), np.uint8)
    # 1. Bytes that continue a character of three or four belong to it.
    for lead, n_more in ((0xE0, 2), (0xF0, 3)) if not joined.isascii() else ():
        at = np.flatnonzero(data >= lead)
        for i in range(1, n_more + 1):
            kinds[at[at + i < len(kinds)] + i] = _INSIDE
    # 2. A word begins with a letter behind anything else, and with each character that stands alone.
    is_run = kinds == _RUN
    is_run[1:] &= kinds[:-1] != _RUN
    begins = np.flatnonzero(is_run | (kinds == _ALONE))
    # 3. A byte counts by its place, and white space for nothing, so what lies between two beginnings is one word.
    values = data.astype(_U64)
    values[kinds == _SPACE] = 0
    values *= _powers(_BASE, len(values))
    hashes = np.add.reduceat(values, begins) * _powers(_INVERSE, len(values))[begins] if len(begins) else values[:0]
    ends_of_texts = np.cumsum([len(text) + 1 for text in texts])
    return mixed(hashes), np.diff(np.searchsorted(begins, ends_of_texts), prepend=0)


def _powers(base: int, n: int) -> np.ndarray:
    """base**0, base**1 ... modulo 2**64; kept for the next block."""
    if base not in _POWERS or len(_POWERS[base]) < n:
        steps = np.full(max(n, 2 * _BLOCK_BYTES), base, _U64)
        steps[0] = 1
        _POWERS[base] = np.cumprod(steps)
    return _POWERS[base][:n]


def mixed(values: np.ndarray) -> np.ndarray:
    """Each value with its bits spread over all of it; different values stay different."""
    values = values ^ (values >> _U64(32))
    for shift in (29, 32):
        values *= _U64(0xD6E8FEB86659FD93)
        values ^= values >> _U64(shift)
    return values


def _kinds() -> bytes:
    kinds = bytearray([_ALONE]) * 256
    for byte in (*range(ord(" ") + 1), 0x7F):
        kinds[byte] = _SPACE
    letters = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    for byte in (*letters, *range(0x80, 0xE0)):
        kinds[byte] = _RUN
    return bytes(kinds)


_POWERS: dict[int, np.ndarray] = {}
_KIND_OF = _kinds()
