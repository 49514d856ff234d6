"""GGUF files put together byte by byte, with the position of every field, so that tests can break each one.

Shares nothing with the reader and writer under test: numbers are those of llama.cpp 0c1e57098 ggml/src/gguf.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
NUMBER_CODES = {
    U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q", I64: "<q",
    F64: "<d",
}  # fmt: skip


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(n: int) -> bytes:
    return struct.pack("<Q", n)


def string(raw: bytes) -> bytes:
    return u64(len(raw)) + raw


def array(type_id: int, n: int, payload: bytes) -> bytes:
    return u32(type_id) + u64(n) + payload


@dataclass(kw_only=True)
class Key:
    """A key as it will stand in the file: any bytes, any type number, any payload."""

    name: bytes
    type_id: int
    payload: bytes


@dataclass(kw_only=True)
class Tensor:
    """A tensor as it will stand in the file; `dims` fastest axis first, `n_bytes` of data, offset unless given."""

    name: bytes
    dims: tuple[int, ...]
    format_id: int
    n_bytes: int
    offset: int | None = None


@dataclass
class Draft:
    """A file being put together; `marks` holds where each field begins."""

    data: bytearray = field(default_factory=bytearray)
    marks: dict[str, int] = field(default_factory=dict)

    def put(self, mark: str, raw: bytes) -> None:
        self.marks[mark] = len(self.data)
        self.data += raw

    def patched(self, mark: str, raw: bytes) -> bytes:
        """The file with the bytes at a mark overwritten."""
        start = self.marks[mark]
        return bytes(self.data[:start] + raw + self.data[start + len(raw) :])

    def inserted(self, mark: str, raw: bytes) -> bytes:
        """The file with bytes put in before a mark."""
        start = self.marks[mark]
        return bytes(self.data[:start] + raw + self.data[start:])


def keys() -> list[Key]:
    """A key of each shape: text, number, bool, arrays of them."""
    return [
        Key(name=b"general.architecture", type_id=STRING, payload=string(b"gptneox")),
        Key(name=b"general.name", type_id=STRING, payload=string(b"tiny")),
        Key(name=b"gptneox.block_count", type_id=U32, payload=u32(1)),
        Key(name=b"gptneox.flag", type_id=BOOL, payload=b"\1"),
        Key(name=b"tiny.bools", type_id=ARRAY, payload=array(BOOL, 3, b"\1\0\1")),
        Key(name=b"tiny.words", type_id=ARRAY, payload=array(STRING, 2, string(b"one") + string(b"two"))),
        Key(name=b"tiny.numbers", type_id=ARRAY, payload=array(I32, 2, struct.pack("<2i", 7, -7))),
    ]


def tensors() -> list[Tensor]:
    """A vector, a matrix of blocks with padding behind it, a last matrix with padding behind it."""
    return [
        Tensor(name=b"norm", dims=(8,), format_id=0, n_bytes=32),
        Tensor(name=b"blocks", dims=(32, 3), format_id=2, n_bytes=3 * 18),
        Tensor(name=b"last", dims=(4, 3), format_id=1, n_bytes=24),
    ]


def draft(
    keys: Sequence[Key],
    tensors: Sequence[Tensor],
    *,
    version: int = 3,
    alignment: int = 32,
    data: bool = True,
) -> Draft:
    """A file of these keys and tensors; data counts upwards so that every byte has one right place.

    data   False leaves out the data section and the zeros before it
    """
    made = Draft()
    made.put("magic", b"GGUF")
    made.put("version", u32(version))
    made.put("n_tensors", u64(len(tensors)))
    made.put("n_keys", u64(len(keys)))
    for i, key in enumerate(keys):
        made.put(f"key {i}", string(key.name))
        made.put(f"key {i} type", u32(key.type_id))
        made.put(f"key {i} value", key.payload)
    offset = 0
    for i, tensor in enumerate(tensors):
        made.put(f"tensor {i}", string(tensor.name))
        made.put(f"tensor {i} axes", u32(len(tensor.dims)))
        made.put(f"tensor {i} dims", b"".join(u64(n % 2**64) for n in tensor.dims))
        made.put(f"tensor {i} format", u32(tensor.format_id))
        made.put(f"tensor {i} offset", u64(offset if tensor.offset is None else tensor.offset))
        offset += -(-tensor.n_bytes // alignment) * alignment
    made.put("padding", b"")
    if data:
        made.put("padding", bytes(-len(made.data) % alignment))
        made.put("data", b"")
        for i, tensor in enumerate(tensors):
            content = bytes((i + j) % 251 for j in range(tensor.n_bytes))
            made.put(f"data {i}", content + bytes(-tensor.n_bytes % alignment))
    made.put("end", b"")
    return made


def valid() -> Draft:
    """The small file that most cases break."""
    return draft(keys(), tensors())
