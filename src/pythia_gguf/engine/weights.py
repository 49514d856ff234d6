"""A model's tensors in memory: matrices packed for the kernels, vectors as float32, embeddings as they are in the file.

Threads read and pack the rows in slabs, so that memory never holds a second copy of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pythia_gguf.cpus import workers_of
from pythia_gguf.errors import NotFiniteError
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import TensorInfo
from pythia_gguf.gguf.reader import decode_tensor
from pythia_gguf.gguf.tensor_source import TensorSource
from pythia_gguf.kernels.matmul import product_activations
from pythia_gguf.kernels.memory import ALIGNMENT_BYTES, aligned
from pythia_gguf.kernels.packed import PackedMatrix, new_packed, pack_rows, packed_bytes
from pythia_gguf.progress import Progress

_EMBEDDING = "token_embd.weight"
_SLAB_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A weight matrix, packed for products."""

    packed: PackedMatrix

    def activations(self, asked: str) -> str:
        """The form of activations that the product takes; unquantized weights take float32 instead of int8."""
        return product_activations(self.packed.format, asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All tensors of a model.

    matrices    by GGUF name
    vectors     norms and biases, float32
    embeddings  u8 [n_vocab, row_bytes], encoded in `embedding_format`
    """

    matrices: dict[str, Matrix]
    vectors: dict[str, np.ndarray]
    embeddings: np.ndarray
    embedding_format: str

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Rows of the embedding matrix, f32 [n, hidden]; ids have been checked."""
        return FORMATS[self.embedding_format].decode(self.embeddings[ids]).reshape(len(ids), -1)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that every step reads, however few its tokens."""
        return sum(m.packed.data.nbytes for m in self.matrices.values()) + sum(v.nbytes for v in self.vectors.values())


def matrix_formats(source: TensorSource) -> set[str]:
    """Formats of the matrices."""
    return {info.format for info in _matrices(source)}


def weights_bytes(source: TensorSource) -> int:
    """Memory that all tensors of a model take once they are loaded."""
    matrices = _matrices(source)
    vectors = sum(info.shape[0] * 4 for info in source.tensors.values() if len(info.shape) == 1)
    return sum(packed_bytes(i.format, *i.shape) for i in matrices) + vectors + source.tensors[_EMBEDDING].n_bytes


def load_weights(source: TensorSource, n_threads: int, progress: Progress) -> Weights:
    """Read all tensors of a model whose shapes are checked; raises NotFiniteError for a weight of infinity or NaN."""
    progress.stage("loading", sum(info.n_bytes for info in _matrices(source)), "bytes")
    vectors = {name: _vector(source, name) for name, info in source.tensors.items() if len(info.shape) == 1}
    matrices = {name: Matrix(packed=packed) for name, packed in _rooms(source).items()}
    jobs = []
    for name, matrix in matrices.items():
        info = source.tensors[name]
        step = max(16, _SLAB_BYTES // info.row_bytes // 16 * 16)
        jobs += [(name, matrix.packed, at, min(at + step, info.n_rows)) for at in range(0, info.n_rows, step)]

    def pack(job: tuple[str, PackedMatrix, int, int]) -> None:
        name, packed, start, stop = job
        rows = source.rows(name, start, stop)
        _check(source, name, start, rows)
        pack_rows(packed, start, rows)
        progress.advance(name, rows.nbytes)

    with workers_of(n_threads, "load") as pool:
        list(pool.map(pack, jobs))
    embeddings = source.rows(_EMBEDDING)
    _check(source, _EMBEDDING, 0, embeddings)
    return Weights(
        matrices=matrices,
        vectors=vectors,
        embeddings=embeddings,
        embedding_format=source.tensors[_EMBEDDING].format,
    )


def _rooms(source: TensorSource) -> dict[str, PackedMatrix]:
    """Room for every matrix in one piece of memory, in the order in which a step reads them.

    One piece, because NumPy asks for large pages only for large arrays, and with small ones reading is half as fast.
    """
    infos = _matrices(source)
    sizes = [packed_bytes(info.format, *info.shape) for info in infos]
    starts = np.cumsum([0, *(-(-n // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for n in sizes)])
    memory = aligned((int(starts[-1]),), np.uint8)
    return {
        info.name: new_packed(info.format, info.n_rows, info.shape[-1], memory[start : start + n])
        for info, start, n in zip(infos, starts, sizes, strict=False)
    }


def _matrices(source: TensorSource) -> list[TensorInfo]:
    return [info for name, info in source.tensors.items() if len(info.shape) == 2 and name != _EMBEDDING]


def _vector(source: TensorSource, name: str) -> np.ndarray:
    _check(source, name, 0, source.rows(name))
    values = decode_tensor(source, name)
    vector = aligned(values.shape, np.float32)
    vector[:] = values
    return vector


def _check(source: TensorSource, name: str, first_row: int, rows: np.ndarray) -> None:
    """Raises NotFiniteError for the first weight, or block of weights, of encoded rows that is infinity or NaN."""
    info = source.tensors[name]
    block = FORMATS[info.format]
    i = block.first_not_finite(rows)
    if i is None:
        return
    row, column = divmod(i * block.block_weights, info.shape[-1])
    n = block.block_weights
    what = f"weight {column}" if n == 1 else f"the scale of weights {column} to {column + n - 1}"
    raise NotFiniteError(
        f"{what} of row {first_row + row} is infinity or NaN: the file is damaged, or made of a model that diverged",
        path=source.name,
        field=f"tensor {name}",
        offset=source.data_offset + info.offset + first_row * info.row_bytes + i * block.block_bytes,
    )
