"""Places of PREFIX.bin in the order of what follows them, and searches in it.

    PREFIX.suffixes.npy   u32 [tokens]  for each part of PREFIX.bin its places, counted from where the part begins
    PREFIX.suffixes.sums.npy  u32  CRC-32 of each `BLOCK` entries of it
    PREFIX.suffixes.json  which tokens they are of, where parts begin, a hash of the sums

What follows a place ends with its sequence, so nothing is found across two documents, or two rows that were pulled. A
part holds whole sequences. Each block of the array is compared with its sum when it is read for the first time, so
damage is noticed, whatever it is.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from pythia_gguf.data.array_file import ArrayFile
from pythia_gguf.data.token_file import TokenFile, idx_path
from pythia_gguf.errors import Argument, ModelFileError, Part, UsageError, one_line
from pythia_gguf.files import sha256_of
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.progress import Progress

SCHEMA_VERSION = 1
BLOCK = 1 << 14
_SHAPE = {
    "n_tokens": int,
    "idx_sha256": str,
    "bin_sample_sha256": str,
    "parts": [int],
    "last_token": (int, None),
    "sums_sha256": str,
    "account_sha256": str,
}
# Pieces of PREFIX.bin, spread evenly, whose hash tells other tokens of the same sizes.
_N_SAMPLES, _SAMPLE_TOKENS = 64, 2048
_AGAIN: tuple[Part, ...] = (". Run pythia data index again", (", with ", Argument("force", True)))
# So many tokens are compared at first, then twice as many.
_FIRST_TOKENS = 64
# The first entries of each search are kept in memory with their tokens, some 10 MB; the last are read at once.
_KEPT_DEPTH, _NEIGHBOURS = 15, 256


def suffixes_path(prefix: str | os.PathLike[str]) -> Path:
    """The file of the sorted places."""
    return Path(f"{os.fspath(prefix)}.suffixes.npy")


def sums_path(prefix: str | os.PathLike[str]) -> Path:
    """The file of the sums of its blocks."""
    return Path(f"{os.fspath(prefix)}.suffixes.sums.npy")


def account_path(prefix: str | os.PathLike[str]) -> Path:
    """The file that says which tokens they are of."""
    return Path(f"{os.fspath(prefix)}.suffixes.json")


def facts_of(tokens: TokenFile) -> dict[str, Any]:
    """What says which tokens an index is of; raises UsageError where they can have none."""
    name = one_line(os.fspath(tokens.prefix))
    if tokens.dtype != np.dtype("<u2"):
        raise UsageError(f"{name}: an index needs ids of two bytes, these have {tokens.dtype.itemsize}")
    if not tokens.n_tokens:
        raise UsageError(f"{name} holds no token")
    digest = hashlib.sha256()
    n = min(_SAMPLE_TOKENS, tokens.n_tokens)
    for i in range(_N_SAMPLES):
        digest.update(tokens.slice((tokens.n_tokens - n) * i // (_N_SAMPLES - 1), n).data)
    idx = sha256_of(idx_path(tokens.prefix))
    return {"n_tokens": tokens.n_tokens, "idx_sha256": idx, "bin_sample_sha256": digest.hexdigest()}


def account_text(told: dict[str, Any]) -> str:
    """What PREFIX.suffixes.json says, with a hash of that itself."""
    told = {"schema_version": SCHEMA_VERSION} | told
    return json_text(told | {"account_sha256": _hash_of(told)})


def _read_account(tokens: TokenFile) -> dict[str, Any]:
    path = account_path(tokens.prefix)
    told = read_json_object(path, _SHAPE, what="an account of an index")
    if told["account_sha256"] != _hash_of({key: told[key] for key in told if key != "account_sha256"}):
        raise ModelFileError("damaged", *_AGAIN, path=path)
    facts = facts_of(tokens)
    if facts != {key: told[key] for key in facts}:
        raise ModelFileError("it is of other tokens than those that are there now", *_AGAIN, path=path)
    return told


def _hash_of(told: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(told).encode()).hexdigest()


def block_sums(array: ArrayFile, progress: Progress) -> Iterator[int]:
    """The CRC-32 of each block."""
    progress.stage("summing", len(array), "places")
    for first in range(0, len(array), BLOCK):
        places = array.read(first, min(first + BLOCK, len(array)))
        yield zlib.crc32(places.data)
        progress.advance(array.path.name, len(places))


class Stretch(NamedTuple):
    """Entries first .. last - 1 of the array, whose suffixes begin with the tokens that were looked for.

    part, end  positions of the part of PREFIX.bin that they are of
    """

    part: int
    end: int
    first: int
    last: int


class _Query:
    """Tokens that are looked for.

    n_safe  where fewer of them match, a sequence does not end among them
    """

    def __init__(self, ids: Sequence[int] | np.ndarray, last_token: int | None) -> None:
        self.ids = np.asarray(ids, "<u2")
        self.n_safe = 1
        if last_token is not None:
            places = np.flatnonzero(self.ids == last_token)
            self.n_safe += int(places[0]) if places.size else len(self.ids)


class SuffixIndex:
    """An open index; threads may search at the same time.

    tokens   that it is of
    account  what PREFIX.suffixes.json says
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Open and check it; raises StorageError, UsageError where there is none, ModelFileError where it is stale."""
        self.tokens = TokenFile(prefix)
        self._open: list[TokenFile | ArrayFile] = [self.tokens]
        try:
            if not account_path(prefix).is_file():
                raise UsageError(f"{one_line(os.fspath(prefix))} has no index. Make one: pythia data index")
            self.account = _read_account(self.tokens)
            self._parts = list(pairwise([*self.account["parts"], self.tokens.n_tokens]))
            self._kept_depth = max(0, _KEPT_DEPTH - len(self._parts).bit_length())
            self._last_token = self.account["last_token"]
            self._array = ArrayFile(suffixes_path(prefix), ("<u4",), 1)
            self._open.append(self._array)
            self._read_sums()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        for file in self._open:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check(self, progress: Progress) -> None:
        """Compare all blocks with their sums; raises ModelFileError."""
        progress.stage("checking", len(self._sums), "blocks")
        for block in range(len(self._sums)):
            self._check(block)
            progress.advance(self._array.path.name, 1)

    def find(self, ids: Sequence[int] | np.ndarray) -> list[Stretch]:
        """Where in the array the suffixes are that begin with some tokens; their order in it says nothing else.

        Raises ModelFileError where the array is damaged
        """
        query, found = _Query(ids, self._last_token), []
        for part, end in self._parts:
            low, high, match, _ = self._search(query, part, end)
            if match is not None:
                sign = partial(self._sign, query, part, end)
                first = low + bisect.bisect_left(range(low, match), 0, key=sign)
                last = match + 1 + bisect.bisect_right(range(match + 1, high), 0, key=sign)
                found.append(Stretch(part, end, first, last))
        return found

    def longest(self, ids: Sequence[int] | np.ndarray) -> int:
        """How many of these tokens, from the first on, stand somewhere."""
        query = _Query(ids, self._last_token)
        return max(self._search(query, part, end)[3] for part, end in self._parts)

    def positions(self, stretches: Sequence[Stretch], most: int) -> np.ndarray:
        """Positions in PREFIX.bin of at most so many entries, i64 [n], sorted."""
        found = [np.empty(0, np.int64)]
        for part, end, first, last in stretches:
            last = min(last, first + most)
            found.append(self._read(part, end, first, last))
            most -= last - first
        return np.sort(np.concatenate(found))

    def _search(self, query: _Query, part: int, end: int) -> tuple[int, int, int | None, int]:
        """Entries between which all matches are, one of them (None: there is none), and the longest match."""
        low, high, longest, depth = part, end, 0, 0
        near: np.ndarray | None = None
        while low < high:
            middle = (low + high) // 2
            # 1. Every search begins with the same entries: those are kept. The last ones are neighbours: one read.
            if depth < self._kept_depth:
                position, head = self._kept_entry(part, end, middle)
            else:
                if near is None and high - low <= _NEIGHBOURS:
                    near, first = self._read(part, end, low, high), low
                here = self._read(part, end, middle, middle + 1) if near is None else near[middle - first :]
                position, head = int(here[0]), None
            # 2. The half in which the tokens would be.
            sign, n = self._compare(query, position, end, head)
            longest, depth = max(longest, n), depth + 1
            if sign == 0:
                return low, high, middle, longest
            if sign < 0:
                low = middle + 1
            else:
                high = middle
        return low, high, None, longest

    def _sign(self, query: _Query, part: int, end: int, entry: int) -> int:
        return self._compare(query, int(self._read(part, end, entry, entry + 1)[0]), end)[0]

    def _kept_entry(self, part: int, end: int, entry: int) -> tuple[int, np.ndarray]:
        """The position of an entry, and the first tokens there."""
        kept = self._kept.get(entry)
        if kept is None:
            position = int(self._read(part, end, entry, entry + 1)[0])
            kept = self._kept[entry] = position, self.tokens.slice(position, min(_FIRST_TOKENS, end - position))
        return kept

    def _compare(self, query: _Query, position: int, end: int, head: np.ndarray | None = None) -> tuple[int, int]:
        """Whether a suffix comes before the tokens (-1), begins with them (0), or comes behind; how many are equal.

        head  its first tokens, where they are in memory
        """
        ids, n, step = query.ids, 0, _FIRST_TOKENS
        # 1. The first token that differs, without a look at ends. Long matches are rare, so little is read at first.
        while n < len(ids) and position + n < end:
            size = min(step, len(ids) - n, end - position - n)
            there = self.tokens.slice(position + n, size) if head is None else head[:size]
            differs = there != ids[n : n + size]
            i = int(differs.argmax())
            if differs[i]:
                sign = -1 if there[i] < ids[n + i] else 1
                n += i
                break
            n += size
            step *= 2
            head = None
        else:
            sign = 0 if n == len(ids) else -1
        # 2. What lies behind the end of the sequence does not count: a suffix that ends is the smaller one.
        if n >= query.n_safe:
            n_inside = self.tokens.end_after(position) - position
            if n_inside <= n and n_inside < len(ids):
                return -1, n_inside
        return sign, n

    def _read(self, part: int, end: int, first: int, last: int) -> np.ndarray:
        """Positions that entries of a part tell, i64, from blocks that are what was written."""
        for block in range(first // BLOCK, (last - 1) // BLOCK + 1):
            if not self._is_checked[block]:
                self._check(block)
        positions = self._array.read(first, last) + np.int64(part)
        if positions.size and positions.max() >= end:
            raise self._damage(f"entries {first} to {last - 1} tell places beyond the end")
        return positions

    def _check(self, block: int) -> None:
        """Compare a block with its sum; raises ModelFileError."""
        first = block * BLOCK
        data = self._array.read(first, min(first + BLOCK, len(self._array)))
        if zlib.crc32(data.data) != self._sums[block]:
            raise self._damage(f"entries {first} and more are not those that were written")
        self._is_checked[block] = 1

    def _read_sums(self) -> None:
        prefix = self.tokens.prefix
        with ArrayFile(sums_path(prefix), ("<u4",), 1) as sums:
            is_right = len(sums) == -(-len(self._array) // BLOCK) and len(self._array) == self.tokens.n_tokens
            if not is_right or sha256_of(sums_path(prefix)) != self.account["sums_sha256"]:
                raise self._damage("it does not fit to the files beside it")
            self._sums = sums.read(0, len(sums))
        self._is_checked = bytearray(len(self._sums))
        self._kept: dict[int, tuple[int, np.ndarray]] = {}

    def _damage(self, what: str) -> ModelFileError:
        return ModelFileError(f"damaged: {what}", *_AGAIN, path=self._array.path)
