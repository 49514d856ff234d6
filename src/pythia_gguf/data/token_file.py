"""Tokens of documents as GPT-NeoX keeps them: PREFIX.bin holds ids back to back, PREFIX.idx says where each begins.

PREFIX.idx, little-endian; N sequences, and D places where a document begins:

    byte 0         9   b"MMIDIDX\\0\\0"
    byte 9         8   version, 1
    byte 17        1   type of an id, a key of `DTYPES`
    byte 18        8   N
    byte 26        8   D
    byte 34        4N  sizes in tokens, int32
    byte 34 + 4N   8N  where each begins in PREFIX.bin, in bytes, int64
    byte 34 + 12N  8D  the sequence with which each document begins, int64; the last entry is N

Files of rows in training order have D = 1.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from pythia_gguf.errors import ModelFileError, one_line
from pythia_gguf.files import RegularFile, write_all, write_beside

MAGIC = b"MMIDIDX\0\0"
_HEADER = struct.Struct("<9sQBQQ")
# The codes of GPT-NeoX. Other Megatrons exchange 6 and 7; neither could be an id.
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f4", 7: "<f8", 8: "<u2"}
_FLOATS = (6, 7)
U16 = 8
# As many entries are checked and written at once.
_ENTRIES = 1 << 20


def bin_path(prefix: str | os.PathLike[str]) -> Path:
    """The file of the ids."""
    return Path(f"{os.fspath(prefix)}.bin")


def idx_path(prefix: str | os.PathLike[str]) -> Path:
    """The file that says where documents begin."""
    return Path(f"{os.fspath(prefix)}.idx")


class TokenFile:
    """Both files, open and checked; threads may read at the same time.

    n_sequences  of ids: documents, or rows of training
    starts       the entries of documents, D
    n_tokens     of all sequences
    dtype        of an id
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Open PREFIX.idx and PREFIX.bin and check every entry.

        Raises StorageError, and ModelFileError for the first entry that is not as GPT-NeoX writes it.
        """
        self.prefix = Path(prefix)
        self._idx = RegularFile(idx_path(prefix))
        try:
            self._bin = RegularFile(bin_path(prefix))
            try:
                self._read_header()
                self.n_tokens = self._check_sequences()
                self._check_documents()
            except BaseException:
                self._bin.close()
                raise
        except BaseException:
            self._idx.close()
            raise

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        self._idx.close()
        self._bin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def sizes(self) -> np.ndarray:
        """Tokens of every sequence, int32."""
        return self._entries(_HEADER.size, "<i4", 0, self.n_sequences)

    def read(self, i: int, offset: int = 0, n_tokens: int | None = None) -> np.ndarray:
        """Ids of a sequence from a position in it: all that are left, or `n_tokens` of them."""
        if not 0 <= i < self.n_sequences:
            raise IndexError(f"sequence {i} of {self.n_sequences}")
        size = int(self._entries(_HEADER.size, "<i4", i, i + 1)[0])
        n_tokens = size - offset if n_tokens is None else n_tokens
        if offset < 0 or n_tokens < 0 or offset + n_tokens > size:
            raise IndexError(f"tokens {offset}..{offset + n_tokens} of a sequence of {size}")
        start = int(self._entries(self._pointers, "<i8", i, i + 1)[0])
        return self._ids(start + offset * self.dtype.itemsize, n_tokens)

    def slice(self, start: int, n_tokens: int) -> np.ndarray:
        """Ids from a position in the whole file, across sequences."""
        if start < 0 or n_tokens < 0 or start + n_tokens > self.n_tokens:
            raise IndexError(f"tokens {start}..{start + n_tokens} of {self.n_tokens}")
        return self._ids(start * self.dtype.itemsize, n_tokens)

    def end_after(self, position: int) -> int:
        """Where the sequence ends that holds a position of the file."""
        return int(self._begins[np.searchsorted(self._begins, position, "right")])

    def sequences_at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For positions of the file, i64 [n]: the sequences that hold them, and the places in these."""
        numbers = np.searchsorted(self._begins, positions, "right") - 1
        return numbers, positions - self._begins[numbers]

    @cached_property
    def _begins(self) -> np.ndarray:
        """Positions at which sequences begin, and where the last one ends."""
        return np.append([0], np.cumsum(self.sizes(), dtype=np.int64))

    @property
    def _pointers(self) -> int:
        return _HEADER.size + 4 * self.n_sequences

    def _ids(self, start: int, n_tokens: int) -> np.ndarray:
        return np.frombuffer(self._bin.read(start, n_tokens * self.dtype.itemsize), self.dtype)

    def _entries(self, at: int, dtype: str, start: int, stop: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize
        return np.frombuffer(self._idx.read(at + start * size, (stop - start) * size), dtype)

    def _read_header(self) -> None:
        if self._idx.size < _HEADER.size:
            self._refuse(f"a header has {_HEADER.size} bytes, the file {self._idx.size}", 0)
        magic, version, code, n, starts = _HEADER.unpack(self._idx.read(0, _HEADER.size))
        if magic != MAGIC:
            self._refuse(f"no index of GPT-NeoX: expected to begin with {MAGIC!r}, got {magic!r}", 0)
        if version != 1:
            self._refuse(f"expected version 1, got {version}", 9)
        if code not in DTYPES:
            self._refuse(f"expected a type of ids from 1 to {max(DTYPES)}, got {code}", 17)
        if code in _FLOATS:
            self._refuse(f"the entries are of type {code}, which has fractions: no ids of tokens", 17)
        # Python's integers do not overflow, whatever the header claims.
        expected = _HEADER.size + 12 * n + 8 * starts
        if expected != self._idx.size:
            claims = f"{n} sequences and {starts} entries of documents need {expected} bytes"
            self._refuse(f"{claims}, the file has {self._idx.size}. Download it again", 18)
        if not 1 <= starts <= n + 1:
            self._refuse(f"expected 1 to {n + 1} entries of documents, got {starts}", 26)
        self.dtype, self.n_sequences, self.starts = np.dtype(DTYPES[code]), n, starts

    def _check_sequences(self) -> int:
        """Sequences must lie one behind the other and fill the other file; returns their tokens."""
        item = self.dtype.itemsize
        end = 0
        for first, last in _spans(self.n_sequences):
            sizes = self._entries(_HEADER.size, "<i4", first, last)
            if (bad := np.flatnonzero(sizes < 0)).size:
                i = first + int(bad[0])
                self._refuse(f"sequence {i} has {sizes[bad[0]]} tokens", _HEADER.size + 4 * i)
            starts = end + (np.cumsum(sizes, dtype=np.int64) - sizes) * item
            found = self._entries(self._pointers, "<i8", first, last)
            if (bad := np.flatnonzero(found != starts)).size:
                i = first + int(bad[0])
                at = self._pointers + 8 * i
                self._refuse(f"sequence {i} begins at byte {found[bad[0]]}, expected {starts[bad[0]]}", at)
            end = int(starts[-1]) + int(sizes[-1]) * item
            if end > self._bin.size:
                break
        if end != self._bin.size:
            least = "at least " if end > self._bin.size else ""
            message = f"expected {least}{end} bytes as the index says, got {self._bin.size}. Download it again"
            raise ModelFileError(message, path=self._bin.path)
        return end // item

    def _check_documents(self) -> None:
        """The sequences that begin documents must not go back, nor past the end."""
        at = self._pointers + 8 * self.n_sequences
        before = 0
        for first, last in _spans(self.starts):
            begins = self._entries(at, "<i8", first, last)
            if first == 0 and begins[0] != 0:
                self._refuse(f"the first document begins with sequence {begins[0]}, expected 0", at)
            if begins[0] < before or (np.diff(begins) < 0).any() or begins[-1] > self.n_sequences:
                self._refuse(f"the sequences that begin documents do not rise from 0 to {self.n_sequences}", at)
            before = int(begins[-1])

    def _refuse(self, message: str, offset: int) -> None:
        raise ModelFileError(one_line(message), path=self._idx.path, offset=offset)


def write_idx(path: str | os.PathLike[str], sizes: np.ndarray, *, in_order: bool = False) -> None:
    """Write PREFIX.idx, whole or not at all, for u16 ids that lie in PREFIX.bin already.

    sizes     [N] i32, tokens of each sequence
    in_order  sequences are rows of training, which begin and end inside documents
    """
    if sizes.dtype != np.int32 or sizes.ndim != 1:
        raise ValueError(f"expected sizes as int32 [N], got {sizes.dtype} {sizes.shape}")
    n = len(sizes)
    with write_beside(path) as out:
        write_all(out, _HEADER.pack(MAGIC, 1, U16, n, 1 if in_order else n + 1))
        for first, last in _spans(n):
            write_all(out, sizes[first:last].astype("<i4").tobytes())
        end = 0
        for first, last in _spans(n):
            ends = end + np.cumsum(sizes[first:last], dtype=np.int64) * 2
            write_all(out, (ends - sizes[first:last].astype(np.int64) * 2).astype("<i8").tobytes())
            end = int(ends[-1])
        for first, last in _spans(1 if in_order else n + 1):
            write_all(out, np.arange(first, last, dtype="<i8").tobytes())


def _spans(n: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, _ENTRIES):
        yield first, min(first + _ENTRIES, n)
