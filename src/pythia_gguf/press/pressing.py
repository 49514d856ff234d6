"""The pass: every slab of rows is read once, encoded once per format wanted, and appended to every file that wants it.

Knows no quants and no model: it gets, for each file, a header and a format per tensor. Worker threads read and encode
slabs; the calling thread takes their results in order, hashes and writes. So files are written from front to back, a
byte is in memory for a moment only, and no result depends on the number of threads.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import storage_error, write_all, write_beside
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import padded
from pythia_gguf.kernels.encode import ENCODABLE, encode
from pythia_gguf.press.source import PressTensor, Source, WeightReader

# Large enough that a slab outweighs the cost of handing it over, small enough that many fit into memory.
SLAB_WEIGHTS = 2 << 20
# Kernels take groups of 1024 weights; slabs of whole groups leave no remainder.
_GROUP_WEIGHTS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file to write.

    path       final name
    header     everything before the data
    formats    tensor name -> format; every tensor of the source
    alignment  bytes that each tensor is padded to
    """

    path: Path
    header: bytes
    formats: Mapping[str, str]
    alignment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """What was written.

    files    final name -> (bytes, SHA-256)
    tensors  (tensor name, format) -> SHA-256 of its encoded bytes, without padding
    """

    files: Mapping[Path, tuple[int, str]]
    tensors: Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slab:
    tensor: PressTensor
    start: int
    stop: int
    formats: tuple[str, ...]

    @property
    def is_last(self) -> bool:
        return self.stop == self.tensor.n_rows


class _Writer:
    """One file while it is being written: descriptor, running hash, size."""

    def __init__(self, output: OutputFile, file: BinaryIO) -> None:
        self.output = output
        self._file = file
        self._digest = hashlib.sha256()
        self.n_bytes = 0
        self.append(output.header)

    def append(self, data: bytes | memoryview) -> None:
        try:
            write_all(self._file, data)
        except OSError as e:
            raise storage_error(self.output.path, e) from e
        self._digest.update(data)
        self.n_bytes += len(data)

    def pad(self) -> None:
        rest = padded(self.n_bytes, self.output.alignment) - self.n_bytes
        if rest:
            self.append(bytes(rest))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def press(
    source: Source,
    outputs: Sequence[OutputFile],
    *,
    order: Sequence[str],
    threads: int,
    advance: Callable[[str, int], None],
) -> Pressed:
    """Write all files; each appears under its final name only when all of it is on disk.

    order    tensor names as they follow each other in the files
    threads  worker threads that read and encode, at least 1
    advance  called with (tensor name, weights) as weights are finished
    Raises   ModelFileError for weights that cannot be encoded, StorageError when the disk refuses
    """
    tensor_digests: dict[tuple[str, str], str] = {}
    with WeightReader(source) as reader, ExitStack() as stack:
        writers = [_Writer(o, stack.enter_context(write_beside(o.path))) for o in outputs]
        digests: dict[str, hashlib._Hash] = {}
        for slab, encoded in _encode_in_order(reader, _slabs(source, outputs, order), threads):
            for name, data in encoded.items():
                digests.setdefault(name, hashlib.sha256()).update(data)
            for writer in writers:
                writer.append(encoded[writer.output.formats[slab.tensor.name]])
            if slab.is_last:
                for writer in writers:
                    writer.pad()
                tensor_digests |= {(slab.tensor.name, name): digest.hexdigest() for name, digest in digests.items()}
                digests = {}
            advance(slab.tensor.name, (slab.stop - slab.start) * slab.tensor.n_columns)
        files = {w.output.path: (w.n_bytes, w.sha256) for w in writers}
    return Pressed(files=files, tensors=tensor_digests)


def _slabs(source: Source, outputs: Sequence[OutputFile], order: Sequence[str]) -> Iterator[_Slab]:
    by_name = {tensor.name: tensor for tensor in source.tensors}
    for tensor in map(by_name.__getitem__, order):
        formats = tuple(dict.fromkeys(o.formats[tensor.name] for o in outputs))
        whole = max(1, _GROUP_WEIGHTS // tensor.n_columns)
        step = max(1, SLAB_WEIGHTS // tensor.n_columns // whole) * whole
        for start in range(0, tensor.n_rows, step):
            yield _Slab(tensor=tensor, start=start, stop=min(start + step, tensor.n_rows), formats=formats)


def _encode_in_order(
    reader: WeightReader, slabs: Iterator[_Slab], threads: int
) -> Iterator[tuple[_Slab, dict[str, memoryview]]]:
    """Encoded slabs in the order given; a few more than `threads` are in memory at a time."""
    pending: deque[tuple[_Slab, Future[dict[str, memoryview]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="press") as pool:
        try:
            for slab in slabs:
                pending.append((slab, pool.submit(_encode_slab, reader, slab)))
                if len(pending) > threads + 1:
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _encode_slab(reader: WeightReader, slab: _Slab) -> dict[str, memoryview]:
    weights = reader.read(slab.tensor, slab.start, slab.stop)
    return {name: _encode(weights, name, slab) for name in slab.formats}


def _encode(weights: np.ndarray, name: str, slab: _Slab) -> memoryview:
    if name not in ENCODABLE:
        return _plain(weights, name, slab).data.cast("B")
    out = np.empty(FORMATS[name].row_bytes(weights.size), np.uint8)
    encode(name, weights, out)
    blocks = out.view(FORMATS[name].block)
    for field in ("d", "dmin", "m"):
        if field in (blocks.dtype.names or ()):
            _refuse_overflow(blocks[field], name, slab)
    return out.data


def _plain(weights: np.ndarray, name: str, slab: _Slab) -> np.ndarray:
    """Weights in a format without blocks."""
    if name == "F32":
        return weights
    if name == "F16":
        with np.errstate(over="ignore"):
            halves = weights.astype(np.float16)
        _refuse_overflow(halves, name, slab)
        return halves
    assert name == "BF16", name  # only a tensor that is BF16 already stays BF16
    return (weights.view(np.uint32) >> 16).astype(np.uint16)


def _refuse_overflow(halves: np.ndarray, name: str, slab: _Slab) -> None:
    if not np.isfinite(halves).all():
        raise ModelFileError(
            f"weights in rows {slab.start} to {slab.stop - 1} are too large for {name}: float16 ends at 65504",
            path=slab.tensor.path,
            field=f"tensor {slab.tensor.name}",
        )
