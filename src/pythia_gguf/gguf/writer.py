"""Lays out the tensors of a new GGUF file and makes its header; the caller makes the data and writes it.

A file is `header_bytes`, then each tensor's bytes at `len(header) + offset`, each padded with zeros to the alignment,
the last one too: what llama.cpp 0c1e57098 writes (ggml/src/gguf.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    VERSION,
    Metadata,
    TensorInfo,
    Value,
    alignment_fault,
    alignment_of,
    key_fault,
    name_fault,
    padded,
    shape_fault,
    tensor_bytes,
)
from pythia_gguf.gguf.values import string_bytes, value_bytes


def layout(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], alignment: int = DEFAULT_ALIGNMENT
) -> tuple[TensorInfo, ...]:
    """Place tensors one after the other.

    tensors    name, key of formats.FORMATS, shape in NumPy order; written with the axes given
               (llama.cpp leaves out leading axes of 1)
    alignment  bytes; when it is not 32, put it into the metadata as np.uint32 general.alignment
    Raises     ValueError for names, formats and shapes that a GGUF file cannot hold
    """
    infos: dict[str, TensorInfo] = {}
    offset = 0
    for name, format_name, shape in tensors:
        if name in infos:
            raise ValueError(f"duplicate tensor {name}")
        if format_name not in FORMATS:
            raise ValueError(f"tensor {name}: unknown format {format_name}")
        if fault := name_fault(name.encode("utf-8")) or shape_fault(format_name, shape):
            raise ValueError(f"tensor {name}: {fault}")
        n_bytes = tensor_bytes(format_name, shape)
        infos[name] = TensorInfo(name=name, format=format_name, shape=shape, offset=offset, n_bytes=n_bytes)
        offset = padded(offset + n_bytes, alignment)
    return tuple(infos.values())


class KeyBytes:
    """Bytes of keys with their values, made once where several headers have the same value: tokens take their time."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Value, bytes]] = {}

    def of(self, key: str, value: Value) -> bytes:
        """The bytes of a key; raises ValueError as `header_bytes` does."""
        made = self._made.get(key)
        if made is None or made[0] is not value:
            made = self._made[key] = (value, _key_bytes(key, value))
        return made[1]


def header_bytes(metadata: Metadata, infos: Sequence[TensorInfo], keys_made: KeyBytes | None = None) -> bytes:
    """Everything before the data: magic, counts, keys, tensor infos of `layout`, zeros up to the alignment.

    keys_made  for several headers with the same values; the values must not change meanwhile
    Raises ValueError for illegal keys, values without a GGUF type, and infos that `layout` would place
    elsewhere under the metadata's alignment.
    """
    keys_made = keys_made or KeyBytes()
    keys = b"".join(keys_made.of(key, value) for key, value in metadata.items())
    alignment = alignment_of(metadata)
    if layout(((info.name, info.format, info.shape) for info in infos), alignment) != tuple(infos):
        raise ValueError(f"tensors are not laid out for the alignment of {alignment} that the metadata says")
    start = MAGIC + struct.pack("<IQQ", VERSION, len(infos), len(metadata))
    header = start + keys + b"".join(map(_info_bytes, infos))
    return header.ljust(padded(len(header), alignment), b"\0")


def file_bytes(metadata: Metadata, infos: Sequence[TensorInfo], keys_made: KeyBytes | None = None) -> int:
    """Exact size of the finished file; arguments and errors as of `header_bytes`."""
    header = len(header_bytes(metadata, infos, keys_made))
    last = infos[-1].offset + infos[-1].n_bytes if infos else 0
    return header + padded(last, alignment_of(metadata))


def _key_bytes(key: str, value: Value) -> bytes:
    fault = key_fault(key.encode("utf-8"))
    if fault is None and key == ALIGNMENT_KEY:
        fault = alignment_fault(value)
    if fault:
        raise ValueError(f"{key}: {fault}")
    try:
        return string_bytes(key) + value_bytes(value)
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from e


def _info_bytes(info: TensorInfo) -> bytes:
    axes = struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *reversed(info.shape))
    return string_bytes(info.name) + axes + struct.pack("<IQ", FORMATS[info.format].ggml_id, info.offset)
