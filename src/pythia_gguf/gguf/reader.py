"""Opens GGUF files: the whole header is validated before any of it is used; tensors are then read by rows.

Which keys and tensors a model must have is checked elsewhere (arch/, tokenizer/). The rules are those of llama.cpp
0c1e57098 (ggml/src/gguf.cpp), which wants tensors in order and without gaps, and of the format's description (ggml
docs/gguf.md) where llama.cpp is lax: UTF-8, booleans, keys, alignment, padding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_gguf.arguments import checked
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile, sha256_of
from pythia_gguf.formats import FORMAT_OF_ID, FORMATS
from pythia_gguf.gguf.container import (
    ALIGNMENT_KEY,
    KEY_BYTES_MAX,
    MAGIC,
    N_AXES_MAX,
    N_KEYS_MAX,
    N_TENSORS_MAX,
    NAME_BYTES_MAX,
    READABLE_VERSIONS,
    Metadata,
    TensorInfo,
    alignment_fault,
    alignment_of,
    key_fault,
    name_fault,
    padded,
    shape_fault,
    tensor_bytes,
)
from pythia_gguf.gguf.cursor import AGAIN, Cursor
from pythia_gguf.gguf.tensor_source import TensorSource, find_rows, find_tensor
from pythia_gguf.gguf.values import read_value

_START_BYTES = 24
_KEY_BYTES_LEAST = 8 + 1 + 4 + 1
_TENSOR_BYTES_LEAST = 8 + 1 + 4 + 8 + 4 + 8
_SLAB_WEIGHTS = 1 << 20

# Formats of llama.cpp 0c1e57098 (ggml/include/ggml.h, enum ggml_type) that this project does not have.
_OTHER_FORMATS = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
    40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip

# Files that people pass by mistake, recognized by their first four bytes.
_NOT_GGUF = {
    b"vers": "a Git LFS pointer, not the model: run `git lfs pull`",
    b"PK\x03\x04": "a zip archive, such as a PyTorch checkpoint",
} | dict.fromkeys((b"GGML", b"lmgg", b"fmgg", b"tjgg"), "a model from before GGUF: convert it again")


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFFile:
    """A validated header.

    version      2 or 3
    metadata     in file order
    tensors      in file order, which is the order of their data
    data_offset  bytes from the start of the file to the data section
    alignment    of tensors, in bytes
    n_bytes      size of the file
    """

    path: Path
    version: int
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    data_offset: int
    alignment: int
    n_bytes: int

    @property
    def name(self) -> str:
        """What messages call it: its path."""
        return str(self.path)

    @property
    def beside(self) -> Path:
        """The file, in whose folder its manifest lies."""
        return self.path

    def sha256(self) -> str:
        """Hash of the file as it is now."""
        return sha256_of(self.path)

    @property
    def formats(self) -> dict[str, str]:
        """Format of each tensor, by name."""
        return {name: tensor.format for name, tensor in self.tensors.items()}

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """See `TensorSource.rows`; our own copy.

        Raises ModelFileError for a missing name or a file that has changed since, ValueError for missing rows.
        """
        info, stop = find_rows(self, name, start, stop)
        rows = np.empty((stop - start) * info.row_bytes, np.uint8)
        # Opened for each read: a header that is held for long holds no descriptor, and opening costs little beside it.
        with RegularFile(self.path) as file:
            if file.size != self.n_bytes:
                raise ModelFileError(f"file changed: had {self.n_bytes} bytes, now {file.size}", path=self.path)
            file.read_into(self.data_offset + info.offset + start * info.row_bytes, rows.data)
        return rows.reshape(stop - start, info.row_bytes)


@checked
def open_gguf(path: str | os.PathLike[str], *, allow_trailing: bool = False) -> GGUFFile:
    """Read and validate the header of a file; no tensor data is read.

    allow_trailing   accept bytes after the last tensor, which a finished file does not have
    Raises           ModelFileError that names byte, field, value and rule; StorageError when the disk refuses
    """
    with RegularFile(path) as file:
        cursor = Cursor(file)
        version = _read_version(cursor)
        n_tensors = cursor.count("tensors", most=N_TENSORS_MAX, least_bytes=_TENSOR_BYTES_LEAST)
        n_keys = cursor.count("keys", most=N_KEYS_MAX, least_bytes=_KEY_BYTES_LEAST)
        metadata = _read_metadata(cursor, n_keys)
        alignment = alignment_of(metadata)
        tensors = _read_tensors(cursor, n_tensors, alignment)
        data_offset = _find_data(cursor, n_tensors, alignment)
        _check_extent(cursor, tensors, data_offset, alignment, allow_trailing=allow_trailing)
        return GGUFFile(
            path=file.path,
            version=version,
            metadata=metadata,
            tensors=tensors,
            data_offset=data_offset,
            alignment=alignment,
            n_bytes=file.size,
        )


@checked
def decode_tensor(gguf: TensorSource, name: str) -> np.ndarray:
    """A tensor's weights, float32 [shape]; decoded in slabs, so it takes little more memory than the result.

    Raises ModelFileError as `TensorSource.rows` does.
    """
    info = find_tensor(gguf, name)
    n_columns = info.shape[-1]
    weights_RK = np.empty((info.n_rows, n_columns), np.float32)
    step = max(1, _SLAB_WEIGHTS // n_columns)
    for start in range(0, info.n_rows, step):
        stop = min(start + step, info.n_rows)
        slab = FORMATS[info.format].decode(gguf.rows(name, start, stop))
        weights_RK[start:stop] = slab.reshape(-1, n_columns)
    return weights_RK.reshape(info.shape)


def _read_version(cursor: Cursor) -> int:
    if cursor.remaining < _START_BYTES:
        raise cursor.fault(f"truncated header: need {_START_BYTES} bytes, have {cursor.remaining}{AGAIN}")
    magic = cursor.take(4)
    if magic != MAGIC:
        hint = _NOT_GGUF.get(magic, "this is not a GGUF file")
        raise cursor.fault(f"bad magic: expected {MAGIC!r}, got {magic!r}: {hint}", 0)
    start = cursor.position
    version = cursor.u32()
    if version in READABLE_VERSIONS:
        return version
    if version and version % 65536 == 0:
        raise cursor.fault("big-endian file: only little-endian ones are supported", start)
    raise cursor.fault(f"unsupported version {version}: expected 2 or 3", start)


def _read_metadata(cursor: Cursor, n_keys: int) -> Metadata:
    metadata: Metadata = {}
    for i in range(n_keys):
        cursor.field = f"key {i + 1} of {n_keys}"
        start = cursor.position
        raw = cursor.short_string("key", KEY_BYTES_MAX)
        if fault := key_fault(raw):
            raise cursor.fault(fault, start)
        key = raw.decode("ascii")
        if key in metadata:
            raise cursor.fault(f"duplicate key {key}", start)
        cursor.field = key
        start = cursor.position
        value = read_value(cursor)
        if key == ALIGNMENT_KEY and (fault := alignment_fault(value)):
            raise cursor.fault(fault, start)
        metadata[key] = value
    return metadata


def _read_tensors(cursor: Cursor, n_tensors: int, alignment: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    expected_offset = 0
    for i in range(n_tensors):
        cursor.field = f"tensor {i + 1} of {n_tensors}"
        start = cursor.position
        raw = cursor.short_string("tensor name", NAME_BYTES_MAX)
        if fault := name_fault(raw):
            raise cursor.fault(fault, start)
        name = raw.decode("utf-8")
        if name in tensors:
            raise cursor.fault(f"duplicate tensor {name}", start)
        cursor.field = f"tensor {name}"
        tensors[name] = _read_tensor_info(cursor, name, alignment, expected_offset)
        expected_offset = padded(tensors[name].offset + tensors[name].n_bytes, alignment)
    return tensors


def _read_tensor_info(cursor: Cursor, name: str, alignment: int, expected_offset: int) -> TensorInfo:
    """Read what follows a tensor's name; `expected_offset` is where the data of the tensor before ends."""
    start = cursor.position
    n_axes = cursor.u32()
    if not 1 <= n_axes <= N_AXES_MAX:
        raise cursor.fault(f"expected 1 to {N_AXES_MAX} axes, got {n_axes}", start)
    shape = tuple(reversed([cursor.u64() for _ in range(n_axes)]))
    format_name = _read_format(cursor)
    if fault := shape_fault(format_name, shape):
        raise cursor.fault(f"shape {list(shape)}: {fault}", start)
    n_bytes = tensor_bytes(format_name, shape)
    if n_bytes > cursor.remaining:
        raise cursor.fault(f"shape {list(shape)} needs {n_bytes} bytes, {cursor.remaining} left{AGAIN}", start)
    start = cursor.position
    offset = cursor.u64()
    if offset % alignment:
        raise cursor.fault(f"expected offset divisible by {alignment}, got {offset}", start)
    if offset != expected_offset:
        raise cursor.fault(f"expected offset {expected_offset}, after the tensor before, got {offset}", start)
    return TensorInfo(name=name, format=format_name, shape=shape, offset=offset, n_bytes=n_bytes)


def _read_format(cursor: Cursor) -> str:
    start = cursor.position
    format_id = cursor.u32()
    if format_id in FORMAT_OF_ID:
        return FORMAT_OF_ID[format_id].name
    if format_id in _OTHER_FORMATS:
        seen, known = _OTHER_FORMATS[format_id], ", ".join(FORMATS)
        raise cursor.fault(f"format {seen} is not supported: expected one of {known}", start)
    raise cursor.fault(f"unknown or removed format {format_id}", start)


def _find_data(cursor: Cursor, n_tensors: int, alignment: int) -> int:
    """Step over the zeros before the data section; returns where it begins.

    A file without tensors may end without them: gguf-py writes vocabularies so.
    """
    cursor.field = "padding before the data"
    start = cursor.position
    if n_tensors == 0 and cursor.remaining == 0:
        return start
    zeros = cursor.take(padded(start, alignment) - start)
    if zeros.strip(b"\0"):
        wrong = len(zeros) - len(zeros.lstrip(b"\0"))
        raise cursor.fault(f"expected zeros, got byte {zeros[wrong]}", start + wrong)
    return cursor.position


def _check_extent(
    cursor: Cursor, tensors: dict[str, TensorInfo], data_offset: int, alignment: int, *, allow_trailing: bool
) -> None:
    """Raises ModelFileError unless the file ends where the last tensor's padding does."""
    have = data_offset + cursor.remaining
    need = data_offset
    for name, info in tensors.items():
        need = data_offset + padded(info.offset + info.n_bytes, alignment)
        if need > have:
            cursor.field = f"tensor {name}"
            raise cursor.fault(f"truncated: need {need} bytes, have {have}{AGAIN}", have)
    if have > need and not allow_trailing:
        cursor.field = "end of file"
        raise cursor.fault(f"{have - need} bytes follow the last tensor: expected {need} bytes in all", need)


def refuse_part(gguf: GGUFFile) -> None:
    """Raises ModelFileError for one of several parts: it holds only some tensors, and nobody looks for the others."""
    n_files = gguf.metadata.get("split.count", np.uint16(1))
    if not isinstance(n_files, np.uint16):
        raise ModelFileError(f"expected a uint16, got {n_files!r}", path=gguf.path, field="split.count")
    if n_files > 1:
        raise ModelFileError(
            f"expected a whole model, got one of {n_files} files. Put them together with llama-gguf-split --merge",
            path=gguf.path,
            field="split.count",
        )
