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
_BLOCK_BYTES = 1 << 20
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
    firsts = ends - counts
    # 1. A shingle begins at every word that has four more behind it in its text.
    n_shingles = np.maximum(counts - (WORDS - 1), 1)
    starts = np.concatenate(([0], np.cumsum(n_shingles)))
    begins = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], n_shingles)
    # 2. Each of its words counts by its place.
    padded = np.concatenate((hashes, np.zeros(WORDS, _U64)))
    made = np.zeros(len(begins), _U64)
    for place in range(WORDS):
        made = made * _U64(_BASE) + padded[begins + place]
    # 3. A text of fewer words has one shingle, and its words alone decide.
    words = _sums(hashes, firsts, ends)
    short = counts < WORDS
    made[starts[:-1][short]] = words[short]
    return Shingles(hashes=mixed(made), starts=starts, words=mixed(words + counts.astype(_U64)))


def _words_of(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all words, and how many each text has."""
    hashes, counts = [np.zeros(0, _U64)], np.zeros(len(texts), np.int64)
    for first, block in _blocks(texts):
        some, text_of_word = _hash_block(block)
        hashes.append(some)
        counts[first : first + len(block)] += np.bincount(text_of_word, minlength=len(block))
    return np.concatenate(hashes), counts


def _blocks(texts: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first text, texts) of about a megabyte together; a longer text comes alone, in parts."""
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
    """Hash of each word of some texts, and the number of the text that it is in."""
    data = np.frombuffer(b" ".join(texts) + b" ", np.uint8)
    kinds = _KIND_OF[data]
    # 1. Bytes that continue a character of three or four belong to it.
    for lead, n_more in ((0xE0, 2), (0xF0, 3)):
        at = np.flatnonzero(data >= lead)
        for i in range(1, n_more + 1 if len(at) else 0):
            kinds[at + i] = _INSIDE
    # 2. A piece of the text begins where the kind changes, and with each character that stands alone.
    is_first = (kinds == _ALONE) | ((kinds != _INSIDE) & (np.concatenate(([_INSIDE], kinds[:-1])) != kinds))
    begins = np.flatnonzero(is_first)
    ends = np.append(begins[1:], len(data))
    is_word = kinds[begins] != _SPACE
    begins, ends = begins[is_word], ends[is_word]
    # 3. Texts lie one space apart.
    ends_of_texts = np.cumsum([len(text) + 1 for text in texts])
    return mixed(_sums(_VALUE_OF[data], begins, ends)), np.searchsorted(ends_of_texts, begins, side="right")


def _sums(values: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each range the sum of values times powers of the base, by place in the range; all of 64 bits, odd base."""
    n = len(values)
    totals = np.zeros(n + 1, _U64)
    np.cumsum(values * _powers(_BASE, n), out=totals[1:])
    return (totals[ends] - totals[begins]) * _powers(_INVERSE, n + 1)[begins]


def _powers(base: int, n: int) -> np.ndarray:
    """base**0, base**1 ... modulo 2**64; kept for the next block."""
    if base not in _POWERS or len(_POWERS[base]) < n:
        steps = np.full(max(n, 2 * _BLOCK_BYTES), base, _U64)
        steps[0] = 1
        _POWERS[base] = np.cumprod(steps)
    return _POWERS[base][:n]


def mixed(values: np.ndarray) -> np.ndarray:
    """Each value with its bits spread over all of it; different values stay different."""
    for shift, factor in ((32, 0xD6E8FEB86659FD93), (29, 0xD6E8FEB86659FD93)):
        values = (values ^ (values >> _U64(shift))) * _U64(factor)
    return values ^ (values >> _U64(32))


def _kinds() -> np.ndarray:
    kinds = np.full(256, _ALONE, np.uint8)
    kinds[: ord(" ") + 1] = kinds[0x7F] = _SPACE
    letters = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    kinds[[*letters, *range(0x80, 0xE0)]] = _RUN
    return kinds


_POWERS: dict[int, np.ndarray] = {}
_KIND_OF = _kinds()
_VALUE_OF = mixed(np.arange(1, 257, dtype=_U64))
