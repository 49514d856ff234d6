"""Cuts tensors into slabs of rows, and reads and encodes a slab: the work that keeps the processors busy.

A slab takes its memory from buffers that are used again and again: fresh pages would cost as much as the fast encoders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.encode import ENCODABLE, encode
from pythia_gguf.press.source import PressTensor
from pythia_gguf.press.weights import WeightReader

# A slab is large enough to outweigh the cost of handing it over, and so small that many fit into memory.
SLAB_WEIGHTS = 1 << 20
# Kernels take groups of 1024 weights; slabs of whole groups leave no remainder.
_GROUP_WEIGHTS = 1024
# Every float16 field of a block is at most a few times the largest weight, so only larger ones can overflow it.
_SAFE_MAGNITUDE = 4096.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Rows start..stop of a tensor, the formats in which they are wanted, and importances of its columns or None."""

    tensor: PressTensor
    start: int
    stop: int
    formats: tuple[str, ...]
    importance: np.ndarray | None = None

    @property
    def n_weights(self) -> int:
        """Weights of all rows."""
        return (self.stop - self.start) * self.tensor.n_columns

    def offset(self, name: str) -> int:
        """Offset of the rows in the tensor encoded in a format, in bytes."""
        return FORMATS[name].row_bytes(self.start * self.tensor.n_columns)

    @property
    def is_last(self) -> bool:
        """Whether the tensor ends here."""
        return self.stop == self.tensor.n_rows


class Buffers:
    """Named arrays that keep their memory from slab to slab."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def take(self, name: str, n_bytes: int) -> np.ndarray:
        """u8 [n_bytes] with any content; valid until the name is taken again."""
        held = self._held.get(name)
        if held is None or held.size < n_bytes:
            held = self._held[name] = np.empty(n_bytes, np.uint8)
        return held[:n_bytes]


def slabs_of(tensor: PressTensor, formats: Sequence[str], importance: np.ndarray | None) -> Iterator[Slab]:
    """Cut a tensor into slabs, front to back; importance f32 [n_columns]."""
    whole = max(1, _GROUP_WEIGHTS // tensor.n_columns)
    step = max(1, SLAB_WEIGHTS // tensor.n_columns // whole) * whole
    wanted = tuple(dict.fromkeys(formats))
    for start in range(0, tensor.n_rows, step):
        stop = min(start + step, tensor.n_rows)
        yield Slab(tensor=tensor, start=start, stop=stop, formats=wanted, importance=importance)


def encode_slab(reader: WeightReader, slab: Slab, buffers: Buffers) -> dict[str, memoryview]:
    """Read and encode a slab; returns its bytes by format, which lie in the buffers.

    Raises ModelFileError for weights that cannot be encoded, StorageError
    """
    raw = buffers.take("raw", slab.n_weights * FORMATS[slab.tensor.stored].block_bytes)
    weights = buffers.take("weights", slab.n_weights * 4).view(np.float32)
    largest = reader.read(slab.tensor, slab.start, slab.stop, raw, weights)
    encoded = {}
    for name in slab.formats:
        out = buffers.take(name, FORMATS[name].row_bytes(slab.n_weights))
        if name in ENCODABLE:
            encode(name, weights, out, slab.importance)
        else:
            _keep(name, weights, out)
        if largest > _SAFE_MAGNITUDE or slab.importance is not None:
            _check_scales(out, name, slab)
        encoded[name] = out.data
    return encoded


def _keep(name: str, weights: np.ndarray, out: np.ndarray) -> None:
    """Store weights in a format without blocks: exact, or rounded to float16 where no block fits a row."""
    if name == "F32":
        out.view(np.float32)[:] = weights
    elif name == "F16":
        with np.errstate(over="ignore"):
            out.view(np.float16)[:] = weights
    else:
        assert name == "BF16", name  # the weights are BF16 values already: they were read or rounded as such
        np.right_shift(weights.view(np.uint32), 16, out=out.view(np.uint16), casting="unsafe")


def _check_scales(out: np.ndarray, name: str, slab: Slab) -> None:
    """Raises ModelFileError when a half-precision value of the format has overflowed."""
    block = FORMATS[name].block
    for field in block.names or ():
        if block[field] == np.float16 and not np.isfinite(out.view(block)[field]).all():
            why = "weights" if slab.importance is None else "weights, as the importance matrix has them scaled,"
            raise ModelFileError(
                f"{why} in rows {slab.start} to {slab.stop - 1} are too large for {name}: float16 ends at 65504",
                path=slab.tensor.path,
                field=f"tensor {slab.tensor.name}",
            )
