"""Header of a safetensors file -> lazy tensors at absolute offsets.

    byte 0      u64   length n of the header, little-endian
    byte 8      JSON  {"name": {"dtype": "F16", "shape": [3, 4], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    byte 8 + n  data  every byte belongs to exactly one tensor; data_offsets count from here

We are stricter than the safetensors library 0.8.0, which takes a key that appears twice, white space before the brace,
any name and a header of 100 MB. Source: README.md, "Format", github.com/huggingface/safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pythia_gguf.checkpoint.tensor import ITEM_BYTES, MAX_DIMS, MAX_TENSORS, LazyTensor, check_name, size_of
from pythia_gguf.errors import ModelFileError, nearest, one_line
from pythia_gguf.files import ReadableFile
from pythia_gguf.json_file import check_shape, parse_json_object

# The header of Pythia 12B has 60 KB. Any header of this size takes a second and 160 MB at most to read.
MAX_HEADER_BYTES = 4 << 20
_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}
_HEADER = {"__metadata__?": {"*": str}, "*": _ENTRY}
_LARGEST = (1 << 63) - 1


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
    try:
        entries = parse_json_object(header.decode("utf-8"))
        check_shape(entries, _HEADER)
    except UnicodeDecodeError as e:
        raise ModelFileError("not UTF-8 text", path=path, field="header", offset=8 + e.start) from e
    except ValueError as e:
        raise ModelFileError(str(e), path=path, field="header") from e
    entries.pop("__metadata__", None)
    if not entries:
        raise ModelFileError("holds no tensors", path=path)
    if len(entries) > MAX_TENSORS:
        raise ModelFileError(f"more than {MAX_TENSORS} tensors", path=path)
    data_start = 8 + len(header)
    tensors = {name: _lazy(name, entry, path=path, data_start=data_start) for name, entry in sorted(entries.items())}
    _check_every_byte_is_owned(list(tensors.values()), data_start=data_start, file_size=file_size)
    return tensors


def _lazy(name: str, entry: dict[str, Any], *, path: Path, data_start: int) -> LazyTensor:
    check_name(name, path)
    if problem := _problem(entry):
        raise ModelFileError(problem, path=path, field=f"tensor {name}")
    dtype, (begin, end) = entry["dtype"], entry["data_offsets"]
    return LazyTensor(
        name=name, dtype=dtype, shape=tuple(entry["shape"]), path=path, offset=data_start + begin, n_bytes=end - begin
    )


def _problem(entry: dict[str, Any]) -> str | None:
    """What is wrong with an entry whose keys have values of the right kind."""
    dtype, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
    if unknown := sorted(entry.keys() - _ENTRY.keys()):
        return f"unknown key {unknown[0][:80]!r}"
    if dtype not in ITEM_BYTES:
        return f"dtype {dtype[:16]!r} is not supported{nearest(dtype[:16], ITEM_BYTES)}"
    if len(shape) > MAX_DIMS:
        return f"expected at most {MAX_DIMS} axes, got {len(shape)}"
    if len(ends) != 2:
        return f"expected two data_offsets, got {len(ends)}"
    if odd := [n for n in (*shape, *ends) if not 0 <= n <= _LARGEST]:
        return f"expected numbers from 0 to {_LARGEST}, got {one_line(repr(odd[0]), 40)}"
    n_bytes = size_of(dtype, tuple(shape))
    if ends[1] - ends[0] != n_bytes:
        return f"expected {n_bytes} bytes for {dtype} {shape}, data_offsets give {ends[1] - ends[0]}"
    return None


def _check_every_byte_is_owned(tensors: list[LazyTensor], *, data_start: int, file_size: int) -> None:
    """Raise unless tensors fill the file from the header to its end: none overlap, and nothing hides between them."""
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
