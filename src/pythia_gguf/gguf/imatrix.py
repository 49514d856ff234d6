"""Importance matrices: files that say how large the activations are that each column of a weight is multiplied with.

We read both forms of llama.cpp, GGUF (since pull request 9400) and the older one, and write the GGUF form. Source:
llama.cpp 0c1e57098 common/imatrix-loader.cpp and tools/imatrix/imatrix.cpp.

GGUF: general.type "imatrix", imatrix.datasets (strings), imatrix.chunk_count and imatrix.chunk_size (u32); for each
weight, sorted by name, two F32 tensors: NAME.in_sum2 [n_columns], sums of squares over all tokens, NAME.counts [1].
Only our files have pythia_gguf.imatrix.runs (strings), each run that was added up, as JSON; llama.cpp ignores the key.
Older form, little-endian: i32 entries; for each i32 length, name, i32 chunks, i32 values, f32 mean square times chunks;
then i32 chunks and i32 length, text file, which may be missing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pythia_gguf.errors import ModelFileError, UsageError, one_line
from pythia_gguf.files import RegularFile
from pythia_gguf.gguf.container import MAGIC, NAME_BYTES_MAX, Metadata, padded
from pythia_gguf.gguf.reader import GGUFFile, decode_tensor, open_gguf
from pythia_gguf.gguf.writer import header_bytes, layout
from pythia_gguf.json_file import check_shape, json_text, parse_json_object

KIND = "imatrix"
_DATASETS, _CHUNK_COUNT, _CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_RUNS = "pythia_gguf.imatrix.runs"
_SUMS, _COUNTS = ".in_sum2", ".counts"
_LARGEST_BYTES = 1 << 30
_N_ENTRIES_MAX = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How large the activations of one weight's columns are.

    sums    f32 [n_columns]  squares of the activations, summed over tokens
    count   tokens
    """

    sums: np.ndarray
    count: int

    @property
    def means(self) -> np.ndarray:
        """Mean square of each column, f32; ones where no token was seen."""
        return self.sums / np.float32(self.count) if self.count > 0 else np.ones_like(self.sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRead:
    """A text that a model has read, to its end or in part."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRun:
    """The model and texts that a matrix was collected from, and everything else that decides its numbers.

    file, sha256  of the model
    model         its `fingerprint`, the same for all files of one model
    texts         in the order in which they were read
    """

    tool_version: str
    file: str
    sha256: str
    model: str
    activations: str
    gelu: str
    kv: str
    context: int
    windows: int
    texts: tuple[TextRead, ...]


# A run as JSON.
_RUN = {
    **dict.fromkeys(("tool_version", "file", "sha256", "model", "activations", "gelu", "kv"), str),
    "context": int,
    "windows": int,
    "texts": [{"file": str, "sha256": str}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceMatrix:
    """What a file holds.

    entries       by the name of the weight
    datasets      names of the texts, as the file has them
    n_chunks      pieces of text
    chunk_tokens  tokens of a piece; 0 where the older form does not say it: its counts are pieces then
    runs          what it was collected from, where the file says it: files of llama.cpp do not
    """

    entries: Mapping[str, Importance]
    datasets: tuple[str, ...]
    n_chunks: int
    chunk_tokens: int
    runs: tuple[MatrixRun, ...] = ()


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Read a file of either form; raises ModelFileError for what is damaged or not finite, StorageError."""
    with RegularFile(path) as file:
        if file.size > _LARGEST_BYTES:
            raise ModelFileError(f"an importance matrix of {file.size} bytes is too large", path=path)
        is_gguf = file.size >= len(MAGIC) and bytes(file.read(0, len(MAGIC))) == MAGIC
        matrix = _from_gguf(open_gguf(path)) if is_gguf else _from_old(bytes(file.read(0, file.size)), file.path)
    if not matrix.entries:
        raise ModelFileError("no entries: not an importance matrix, or an empty one", path=path)
    for name, entry in matrix.entries.items():
        if not np.isfinite(entry.sums).all():
            raise ModelFileError("has values that are not finite", path=path, field=name)
    return matrix


def imatrix_bytes(matrix: ImportanceMatrix) -> bytes:
    """The whole file, GGUF form; raises ValueError for names that a GGUF cannot hold."""
    metadata: Metadata = {
        "general.type": KIND,
        _DATASETS: list(matrix.datasets),
        _CHUNK_COUNT: np.uint32(matrix.n_chunks),
        _CHUNK_SIZE: np.uint32(matrix.chunk_tokens),
    }
    if matrix.runs:
        metadata[_RUNS] = [json_text(asdict(run)) for run in matrix.runs]
    arrays: dict[str, np.ndarray] = {}
    for name in sorted(matrix.entries, key=lambda n: n.encode()):
        entry = matrix.entries[name]
        arrays[name + _SUMS] = entry.sums
        arrays[name + _COUNTS] = np.array([entry.count], np.float32)
    infos = layout((name, "F32", values.shape) for name, values in arrays.items())
    data = (values.astype("<f4").tobytes() for values in arrays.values())
    return header_bytes(metadata, infos) + b"".join(d.ljust(padded(len(d), 32), b"\0") for d in data)


def merged(matrices: Iterable[ImportanceMatrix]) -> ImportanceMatrix:
    """Sums and counts added up, as if all texts had been one.

    Raises UsageError when two files disagree on the columns of a weight, or one does not say how long its pieces are
    """
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    matrices = tuple(matrices)
    sizes = {m.chunk_tokens for m in matrices}
    if len(sizes) > 1 or 0 in sizes:
        shown = ", ".join("not known" if size == 0 else f"{size} tokens" for size in sorted(sizes))
        raise UsageError(f"importance matrices of pieces of different length cannot be added up: {shown}")
    for matrix in matrices:
        for name, entry in matrix.entries.items():
            before = sums.setdefault(name, np.zeros(entry.sums.size, np.float64))
            if before.shape != entry.sums.shape:
                raise UsageError(
                    f"{one_line(name)} has {before.size} columns in one file and {entry.sums.size} in another"
                )
            before += entry.sums
            counts[name] = counts.get(name, 0) + entry.count
    return ImportanceMatrix(
        entries={name: Importance(sums=s.astype(np.float32), count=counts[name]) for name, s in sums.items()},
        datasets=tuple(dataset for matrix in matrices for dataset in matrix.datasets),
        n_chunks=max(counts.values(), default=0) // next(iter(sizes), 1),
        chunk_tokens=next(iter(sizes), 0),
        runs=tuple(run for matrix in matrices for run in matrix.runs),
    )


def _from_gguf(gguf: GGUFFile) -> ImportanceMatrix:
    metadata = gguf.metadata
    if metadata.get("general.type") not in (KIND, None):
        raise ModelFileError("is a GGUF, but no importance matrix", path=gguf.path, field="general.type")
    datasets = metadata.get(_DATASETS)
    if not isinstance(datasets, list):
        raise ModelFileError("expected strings, as in an importance matrix", path=gguf.path, field=_DATASETS)
    numbers = []
    for key in (_CHUNK_COUNT, _CHUNK_SIZE):
        value = metadata.get(key)
        if not isinstance(value, np.uint32):
            raise ModelFileError(f"expected a uint32, got {value!r}", path=gguf.path, field=key)
        numbers.append(int(value))
    entries = {}
    for tensor in gguf.tensors:
        name = tensor.removesuffix(_SUMS)
        if name == tensor:
            if tensor.removesuffix(_COUNTS) + _SUMS not in gguf.tensors:
                raise ModelFileError("is neither sums nor counts of sums", path=gguf.path, field=f"tensor {tensor}")
            continue
        if name + _COUNTS not in gguf.tensors:
            raise ModelFileError(f"no tensor {name + _COUNTS}", path=gguf.path)
        if any(gguf.tensors[t].format != "F32" for t in (tensor, name + _COUNTS)):
            raise ModelFileError("sums and counts must be F32", path=gguf.path, field=f"tensor {name}")
        counts = decode_tensor(gguf, name + _COUNTS).reshape(-1)
        if counts.size != 1 or not 0 <= counts[0] < 2**53:
            raise ModelFileError("expected one count of tokens", path=gguf.path, field=f"tensor {name + _COUNTS}")
        entries[name] = Importance(sums=decode_tensor(gguf, tensor).reshape(-1), count=round(float(counts[0])))
    return ImportanceMatrix(
        entries=entries,
        datasets=tuple(datasets),
        n_chunks=numbers[0],
        chunk_tokens=numbers[1],
        runs=_runs(gguf),
    )


def _runs(gguf: GGUFFile) -> tuple[MatrixRun, ...]:
    """Raises ModelFileError for a key of ours that is not as we write it."""
    listed, runs = gguf.metadata.get(_RUNS, []), []
    try:
        for text in listed if isinstance(listed, list) else [listed]:
            if not isinstance(text, str):
                raise ValueError(f"expected texts, got {text!r}")
            run = parse_json_object(text)
            check_shape(run, _RUN)
            fields = {name: run[name] for name in _RUN}
            texts = tuple(TextRead(file=t["file"], sha256=t["sha256"]) for t in run["texts"])
            runs.append(MatrixRun(**fields | {"texts": texts}))
    except ValueError as e:
        raise ModelFileError(one_line(str(e)), path=gguf.path, field=_RUNS) from e
    return tuple(runs)


class _OldForm:
    """A position in the older form."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._data, self._path, self.position = data, path, 0

    @property
    def is_over(self) -> bool:
        return self.position >= len(self._data)

    def take(self, n_bytes: int, what: str) -> bytes:
        if not 0 <= n_bytes <= len(self._data) - self.position:
            raise ModelFileError(
                f"not an importance matrix: {what} needs {n_bytes} bytes, {len(self._data) - self.position} left",
                path=self._path,
                offset=self.position,
            )
        self.position += n_bytes
        return self._data[self.position - n_bytes : self.position]

    def i32(self, what: str, most: int) -> int:
        at = self.position
        (n,) = struct.unpack("<i", self.take(4, what))
        if not 0 <= n <= most:
            raise ModelFileError(f"not an importance matrix: {what} is {n}", path=self._path, offset=at)
        return int(n)

    def text(self, what: str, most: int) -> str:
        at = self.position
        try:
            return self.take(self.i32(f"length of {what}", most), what).decode()
        except UnicodeDecodeError:
            raise ModelFileError(f"{what} is not UTF-8", path=self._path, offset=at) from None


def _from_old(data: bytes, path: Path) -> ImportanceMatrix:
    form = _OldForm(data, path)
    entries = {}
    for _ in range(form.i32("number of entries", _N_ENTRIES_MAX)):
        name = form.text("name", NAME_BYTES_MAX)
        n_chunks = form.i32("number of chunks", 2**31 - 1)
        n_values = form.i32("number of values", len(data) // 4)
        values = np.frombuffer(form.take(4 * n_values, f"values of {one_line(name)}"), "<f4").astype(np.float32)
        # llama.cpp divides by the number of chunks, and takes the values as they are where there are none.
        entries[name] = Importance(sums=values, count=n_chunks or 1)
    n_chunks, datasets = 0, []
    if not form.is_over:
        n_chunks = form.i32("number of chunks", 2**31 - 1)
        if not form.is_over:
            datasets.append(form.text("name of the text", len(data)))
    return ImportanceMatrix(entries=entries, datasets=tuple(filter(None, datasets)), n_chunks=n_chunks, chunk_tokens=0)
