"""Where a model's keys and tensors come from: what the engine needs of a GGUF, be it a file or in memory.

`GGUFFile` of reader.py is the one, `MemoryGGUF` the other; whatever else has tensors to run can be a third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pythia_gguf.errors import ModelFileError, nearest
from pythia_gguf.gguf.container import Metadata, TensorInfo, alignment_of, padded
from pythia_gguf.json_file import Place


@runtime_checkable
class TensorSource(Protocol):
    """Keys and tensors as a GGUF has them."""

    @property
    def name(self) -> str:
        """What messages call it, such as a path."""

    @property
    def beside(self) -> Place:
        """Where that is found which no key of a GGUF says; see `json_file.objects_beside`."""

    @property
    def metadata(self) -> Metadata:
        """Keys in file order."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensors by name, in file order."""

    @property
    def formats(self) -> Mapping[str, str]:
        """Format of each tensor, by name."""

    @property
    def data_offset(self) -> int:
        """Bytes before the data section in the file that it is or would be."""

    @property
    def n_bytes(self) -> int:
        """Size of that file."""

    def sha256(self) -> str:
        """Hash of that file; each call reads all of it."""

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Encoded rows `start` to `stop` of a tensor: u8 [stop - start, row_bytes], contiguous, not to be written to.

        Rows are those of all axes but the last one together; a vector is one row. Threads may call this at will.
        Raises ModelFileError for a missing name, ValueError for missing rows.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGGUF:
    """A GGUF in memory: what a file of the same keys and tensors holds, byte for byte.

    name      what messages call it
    beside    what manifest.json beside such a file would say
    metadata  in file order
    tensors   in file order, as `gguf.writer.layout` places them
    header    what `gguf.writer.header_bytes` makes of both
    data      u8 [n_rows, row_bytes] by tensor name
    """

    name: str
    beside: Mapping[str, Any]
    metadata: Metadata
    tensors: Mapping[str, TensorInfo]
    header: bytes
    data: Mapping[str, np.ndarray]

    @property
    def formats(self) -> dict[str, str]:
        """Format of each tensor, by name."""
        return {name: tensor.format for name, tensor in self.tensors.items()}

    @property
    def data_offset(self) -> int:
        """Bytes of the header."""
        return len(self.header)

    @property
    def n_bytes(self) -> int:
        """Size of the file that it would be."""
        return sum(map(len, self.pieces()))

    def sha256(self) -> str:
        """Hash of the file that it would be."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """See `TensorSource.rows`; a view of `data`."""
        _, stop = find_rows(self, name, start, stop)
        return self.data[name][start:stop]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes of the file that it would be, front to back."""
        alignment = alignment_of(self.metadata)
        yield self.header
        for name, info in self.tensors.items():
            yield self.data[name].reshape(-1).data
            yield bytes(padded(info.n_bytes, alignment) - info.n_bytes)


def find_rows(source: TensorSource, name: str, start: int, stop: int | None) -> tuple[TensorInfo, int]:
    """A tensor and where the rows wanted of it end; raises ModelFileError for a missing name, ValueError for rows."""
    info = find_tensor(source, name)
    stop = info.n_rows if stop is None else stop
    if not 0 <= start < stop <= info.n_rows:
        raise ValueError(f"rows {start} to {stop} of {name}, which has {info.n_rows}")
    return info, stop


def find_tensor(source: TensorSource, name: str) -> TensorInfo:
    """A tensor by its name; raises ModelFileError where there is none."""
    if name not in source.tensors:
        raise ModelFileError(f"no tensor {name}{nearest(name, source.tensors)}", path=source.name)
    return source.tensors[name]
