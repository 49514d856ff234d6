"""Header of a safetensors file -> lazy tensors at absolute offsets.

Knows nothing of folders, shards or what tensors mean.

    byte 0      u64   length n of the header, little-endian
    byte 8      JSON  {"name": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    byte 8 + n  data  every byte belongs to exactly one tensor; data_offsets count from here

Stricter than the safetensors library 0.8.0, which takes a key that appears twice, white space before the brace, any
name and a header of 100 MB. Source: README.md, "Format", github.com/huggingface/safetensors.
"""

from __future__ import annotations

from pathlib import Path

from pythia_gguf.checkpoint.json_scan import JsonScan
from pythia_gguf.checkpoint.tensor import ITEM_BYTES, MAX_DIMS, MAX_TENSORS, LazyTensor, check_name, size_of
from pythia_gguf.errors import ModelFileError, nearest
from pythia_gguf.files import ReadableFile

MAX_HEADER_BYTES = 16 << 20


def read_safetensors(file: ReadableFile) -> dict[str, LazyTensor]:
    """Every tensor of the file, names sorted as strings; only the header is read.

    Raises ModelFileError for anything the format or the limits of this module do not allow.
    """
    if file.size < 8:
        raise ModelFileError(f"file is cut short: expected a header, got {file.size} bytes", path=file.path)
    n_bytes = int.from_bytes(file.read(0, 8), "little")
    if n_bytes > MAX_HEADER_BYTES:
        raise ModelFileError(
            f"expected at most {MAX_HEADER_BYTES}, got {n_bytes}. Is it a safetensors file?",
            path=file.path,
            field="header length",
            offset=0,
        )
    return parse_header(file.read(8, n_bytes), file_size=file.size, path=file.path)


def parse_header(header: bytes | bytearray, *, file_size: int, path: Path) -> dict[str, LazyTensor]:
    """Every tensor that `header` (the bytes after the length) lists; else as `read_safetensors`."""
    if not header.startswith(b"{"):
        raise ModelFileError("header must begin with '{'", path=path, offset=8)
    scan = JsonScan(header, path=path, start=8)
    tensors: dict[str, LazyTensor] = {}
    for name in scan.members():
        if name == "__metadata__":
            _skip_metadata(scan)
            continue
        check_name(name, path, 8 + scan.position)
        if len(tensors) == MAX_TENSORS:
            raise scan.error(f"more than {MAX_TENSORS} tensors")
        tensors[name] = _read_entry(scan, name, path=path, data_start=8 + len(header))
    scan.end()
    if not tensors:
        raise ModelFileError("holds no tensors", path=path)
    _check_every_byte_is_owned(list(tensors.values()), data_start=8 + len(header), file_size=file_size)
    return dict(sorted(tensors.items()))


def _skip_metadata(scan: JsonScan) -> None:
    for _ in scan.members():
        scan.string()


def _read_entry(scan: JsonScan, name: str, *, path: Path, data_start: int) -> LazyTensor:
    dtype = shape = ends = None
    for key in scan.members():
        if key == "dtype":
            dtype = scan.string()
        elif key == "shape":
            shape = scan.integers(MAX_DIMS)
        elif key == "data_offsets":
            ends = scan.integers(2)
        else:
            raise scan.error(f"tensor {name}: unknown key {key[:80]!r}")
    if dtype is None or shape is None or ends is None or len(ends) != 2:
        raise scan.error(f"tensor {name}: expected dtype, shape and two data_offsets")
    if dtype not in ITEM_BYTES:
        hint = nearest(dtype[:16], ITEM_BYTES)
        raise scan.error(f"tensor {name}: dtype {dtype[:16]!r} is not supported{hint}")
    n_bytes = size_of(dtype, shape)
    if ends[1] - ends[0] != n_bytes:
        raise scan.error(
            f"tensor {name}: expected {n_bytes} bytes for {dtype} {list(shape)}, data_offsets give {ends[1] - ends[0]}"
        )
    return LazyTensor(name=name, dtype=dtype, shape=shape, path=path, offset=data_start + ends[0], n_bytes=n_bytes)


def _check_every_byte_is_owned(tensors: list[LazyTensor], *, data_start: int, file_size: int) -> None:
    """Tensors one after the other from the header to the end of the file: nothing shared, nothing hidden between."""
    end = data_start
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.n_bytes)):
        if tensor.offset != end:
            kind = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole before it"
            raise ModelFileError(
                f"{kind}: expected data at byte {end}, got {tensor.offset}",
                path=tensor.path,
                field=f"tensor {tensor.name}",
            )
        end += tensor.n_bytes
    if end > file_size:
        raise ModelFileError(
            f"file is cut short: expected {end} bytes, got {file_size}. Download it again", path=tensors[0].path
        )
    if end < file_size:
        raise ModelFileError(
            f"{file_size - end} bytes after the last tensor belong to nothing", path=tensors[0].path, offset=end
        )
