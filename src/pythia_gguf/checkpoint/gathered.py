"""Tensors whose values do not lie one after another, or are float64, read as if they lay plainly in a file.

torch.save stores a transposed matrix, a slice or an expanded vector as its storage and strides; a piece of it is
gathered with positional reads when it is wanted, so memory holds one piece. float64 becomes float32, rounded to
nearest, as transformers and llama.cpp's converter make of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pythia_gguf.checkpoint.tensor import ITEM_BYTES, LazyTensor, size_of
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import FileElsewhere, ReadableFile, RegularFile

_CHUNK_BYTES = 1 << 20
# Items further apart are read one by one; nearer ones with what lies between them.
_FAR_BYTES = 512
# What a read costs, in items that could be read in its place.
_READ_ITEMS = 2048


def as_plain(
    tensors: Mapping[str, LazyTensor], elsewhere: Mapping[Path, FileElsewhere]
) -> tuple[dict[str, LazyTensor], dict[Path, FileElsewhere]]:
    """The tensors, each in C order without gaps and not float64; and the files that exist only in this form.

    elsewhere  files that are not on this machine, by path
    """
    found: dict[str, LazyTensor] = {}
    files: dict[Path, FileElsewhere] = {}
    opened: dict[Path, _SharedFile] = {}
    for name, tensor in tensors.items():
        if tensor.stride is None and tensor.dtype != "F64":
            found[name] = tensor
            continue
        source = opened.setdefault(tensor.path, _SharedFile(tensor.path, elsewhere.get(tensor.path)))
        found[name] = plain = _plain(tensor)
        files[plain.path] = FileElsewhere(
            open=partial(_GatheredFile, tensor, plain, source), n_bytes=plain.n_bytes, sha256=""
        )
    return found, files


def _plain(tensor: LazyTensor) -> LazyTensor:
    dtype = "F32" if tensor.dtype == "F64" else tensor.dtype
    path = tensor.path.with_name(f"{tensor.name} of {tensor.path.name}")
    return replace(tensor, dtype=dtype, path=path, offset=0, n_bytes=size_of(dtype, tensor.shape), stride=None)


class _SharedFile:
    """A file that its gathered tensors share: it is open while one of them is."""

    def __init__(self, path: Path, elsewhere: FileElsewhere | None) -> None:
        self._path, self._elsewhere = path, elsewhere
        self._file: ReadableFile | None = None
        self._n_users = 0
        self._lock = threading.Lock()

    def acquire(self) -> ReadableFile:
        with self._lock:
            if self._file is None:
                self._file = self._elsewhere.open() if self._elsewhere else RegularFile(self._path)
            self._n_users += 1
            return self._file

    def release(self) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0 and self._file is not None:
                self._file.close()
                self._file = None


class _GatheredFile(ReadableFile):
    """A tensor of one or two axes as a file of its values."""

    def __init__(self, tensor: LazyTensor, plain: LazyTensor, source: _SharedFile) -> None:
        self.path, self.size = plain.path, plain.n_bytes
        self._offset, self._source = tensor.offset, source
        # Items of a row, from one row to the next, and from one column to the next; without gaps each item is a row.
        match tensor.stride:
            case None:
                self._axes = 1, 1, 0
            case (row_step,):
                self._axes = 1, row_step, 0
            case (row_step, column_step):
                self._axes = tensor.shape[1], row_step, column_step
            case _:
                raise ValueError(f"tensor {tensor.name} has {len(tensor.shape)} axes")
        self._is_double = tensor.dtype == "F64"
        self._stored = np.dtype("<f8" if self._is_double else f"<u{ITEM_BYTES[tensor.dtype]}")
        self._file: ReadableFile | None = source.acquire()

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`, both whole values; raises ModelFileError past the end."""
        view = memoryview(buffer).cast("B")
        if offset < 0 or len(view) > self.size - offset:
            raise ModelFileError("file is cut short", path=self.path, offset=offset)
        item_bytes, n_columns = 4 if self._is_double else self._stored.itemsize, self._axes[0]
        first, n = offset // item_bytes, len(view) // item_bytes
        row = first // n_columns
        values = self._rows(row, -(-(first + n) // n_columns)).reshape(-1)[first - row * n_columns :][:n]
        if self._is_double:
            with np.errstate(over="ignore"):  # the reader of the values says where infinity is
                values = values.astype("<f4")
        view[:] = values.tobytes()

    def _rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as they are stored, gathered along the axis that takes fewer and shorter reads."""
        n_rows, (n_columns, row_step, column_step) = stop - start, self._axes
        rows = np.empty((n_rows, n_columns), self._stored)
        along_rows = n_rows * (_READ_ITEMS + (n_columns - 1) * column_step)
        if along_rows <= n_columns * (_READ_ITEMS + (n_rows - 1) * row_step):
            for i in range(n_rows):
                rows[i] = self._line((start + i) * row_step, column_step, n_columns)
        else:
            for j in range(n_columns):
                rows[:, j] = self._line(start * row_step + j * column_step, row_step, n_rows)
        return rows

    def _line(self, first: int, step: int, n: int) -> np.ndarray:
        """Every `step`-th stored item, n of them."""
        if step == 0:
            return np.repeat(self._items(first, 1), n)
        step_bytes = step * self._stored.itemsize
        n_at_once = 1 if step_bytes > _FAR_BYTES else _CHUNK_BYTES // step_bytes
        line = np.empty(n, self._stored)
        for i in range(0, n, n_at_once):
            m = min(n_at_once, n - i)
            line[i : i + m] = self._items(first + i * step, (m - 1) * step + 1)[::step]
        return line

    def _items(self, first: int, n: int) -> np.ndarray:
        if self._file is None:
            raise ValueError("read from a file that is closed")
        size = self._stored.itemsize
        return np.frombuffer(self._file.read(self._offset + first * size, n * size), self._stored)

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        if self._file is not None:
            self._file = None
            self._source.release()
