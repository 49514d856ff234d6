"""Reads rows of a source's tensors as float32, and checks and rounds them on the way."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import ReadableFile, RegularFile
from pythia_gguf.formats import FORMATS
from pythia_gguf.formats.plain import round_bf16
from pythia_gguf.kernels.widen import widen
from pythia_gguf.press.source import PressTensor, Source

_NAMES = {"F16": "float16", "BF16": "bfloat16"}


class WeightReader:
    """Reads rows of a source's tensors as float32; threads may share one."""

    def __init__(self, source: Source) -> None:
        """Open the files that hold tensors; raises StorageError when one has gone."""
        self._files: dict[Path, ReadableFile] = {}
        try:
            for tensor in source.tensors:
                if tensor.path not in self._files:
                    elsewhere = source.elsewhere.get(tensor.path)
                    self._files[tensor.path] = elsewhere.open() if elsewhere else RegularFile(tensor.path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, tensor: PressTensor, start: int, stop: int, raw: np.ndarray, weights: np.ndarray) -> float:
        """Read rows `start` to `stop`, rounded as the unquantized file holds them.

        raw      u8 [n * bytes of a stored value]  scratch; n = (stop - start) * n_columns
        weights  f32 [n]                           result
        Returns  the largest magnitude
        Raises   ModelFileError for NaN, infinity, and values that the unquantized format cannot hold, with their index
        """
        row_bytes = tensor.n_columns * FORMATS[tensor.stored].block_bytes
        for row, source_row, n in _pieces(tensor, start, stop):
            at = (row - start) * row_bytes
            place = tensor.offset + source_row * row_bytes
            self._files[tensor.path].read_into(place, raw[at : at + n * row_bytes].data)
        largest = widen(tensor.stored, raw, weights)
        if not isfinite(largest):
            stored = FORMATS[tensor.stored].decode(raw)
            _refuse(~np.isfinite(stored), stored, "is not finite", tensor, start)
        if tensor.format not in ("F32", tensor.stored):
            _round(weights, tensor, start)
        return largest


def _pieces(tensor: PressTensor, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The parts of rows start..stop that are contiguous in the source: (row here, row there, number of rows)."""
    if tensor.runs is None:
        yield start, start, stop - start
        return
    for row, source_row, n in tensor.runs:
        first, last = max(row, start), min(row + n, stop)
        if first < last:
            yield first, source_row + first - row, last - first


def _round(weights: np.ndarray, tensor: PressTensor, start: int) -> None:
    """Round float32 in place to what the unquantized file holds, nearest even, as the converter does.

    Source llama.cpp 0c1e57098 gguf-py/gguf/quants.py, class F16.
    """
    if tensor.format == "F16":
        with np.errstate(over="ignore"):
            rounded = weights.astype(np.float16).astype(np.float32)
    else:
        rounded = round_bf16(weights)
    if not np.isfinite(rounded).all():
        limit = {"F16": "65504", "BF16": "3.3895e38"}[tensor.format]
        _refuse(
            ~np.isfinite(rounded), weights, f"does not fit {_NAMES[tensor.format]} ({limit} at most)", tensor, start
        )
    weights[:] = rounded


def _refuse(wrong: np.ndarray, weights: np.ndarray, why: str, tensor: PressTensor, start: int) -> NoReturn:
    i = int(wrong.argmax())
    row, column = divmod(i, tensor.n_columns)
    _, source_row, _ = next(_pieces(tensor, start + row, start + row + 1))
    index = [source_row, column] if len(tensor.shape) == 2 else [source_row]
    place = f"{tensor.source_name}, {tensor.name}" if tensor.source_name != tensor.name else tensor.name
    raise ModelFileError(f"value {weights[i]} at {index} {why}", path=tensor.path, field=f"tensor {place}")
