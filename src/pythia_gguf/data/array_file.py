"""Arrays in .npy files of any size: written whole or not at all, and read entry by entry without a memory map."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile, write_beside

_MAGIC = b"\x93NUMPY\x01\0"
# Real ones have 128 bytes. NumPy's reader of headers runs them through Python's tokenizer, which may raise anything.
_MOST_HEADER = 4096
_HEADER = re.compile(
    re.escape(_MAGIC) + rb"(?P<length>..)\{'descr': '(?P<dtype>[<|]\w\d{1,2})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(?:\d{1,19},? ?)*)\), \} *\n",
    re.DOTALL,
)


def write_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an array as numpy.save does; raises StorageError."""
    with write_beside(path) as out:
        np.save(out, array)


class ArrayFile:
    """An open .npy file that holds integers.

    shape  of the array
    """

    def __init__(self, path: str | os.PathLike[str], dtypes: Sequence[str], n_axes: int) -> None:
        """Open a file whose array has one of these types, and so many axes; raises StorageError, ModelFileError."""
        self.path = Path(path)
        self._file = RegularFile(path)
        try:
            self._read_header(dtypes, n_axes)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self.shape[0]

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Entries of the first axis; the caller has checked that they are there."""
        data = self._file.read(self._at + start * self._entry_bytes, (stop - start) * self._entry_bytes)
        return np.frombuffer(data, self._dtype).reshape(stop - start, *self.shape[1:])

    def read_one(self, i: int) -> int:
        """An entry of an array of one axis without a sign; the caller has checked that it is there."""
        return int.from_bytes(self._file.read(self._at + i * self._entry_bytes, self._entry_bytes), "little")

    def _read_header(self, dtypes: Sequence[str], n_axes: int) -> None:
        head = _HEADER.match(self._file.read(0, min(self._file.size, _MOST_HEADER)))
        if head is None or head.end() != len(_MAGIC) + 2 + int.from_bytes(head["length"], "little"):
            raise ModelFileError("not an array as NumPy writes it", path=self.path)
        dtype, shape = head["dtype"].decode(), tuple(int(n) for n in head["shape"].split(b",") if n.strip())
        if dtype not in dtypes or len(shape) != n_axes:
            wanted = f"an array of {' or '.join(dtypes)} with {n_axes} axes"
            raise ModelFileError(f"expected {wanted}, got {dtype} {list(shape)}", path=self.path)
        self.shape: tuple[int, ...] = shape
        self._dtype, self._at = np.dtype(dtype), head.end()
        self._entry_bytes = math.prod(shape[1:]) * self._dtype.itemsize
        expected = self._at + shape[0] * self._entry_bytes
        if expected != self._file.size:
            raise ModelFileError(f"expected {expected} bytes, got {self._file.size}. Make it again", path=self.path)
