"""Pickles of state dicts, opcode by opcode; each function returns the bytes that leave one value on the stack.

It is written without the reader under test, so that a mistake of that reader cannot hide. No memo: what torch shares is
repeated here.
"""

from __future__ import annotations

import struct

PROTO = b"\x80\x02"
STOP = b"."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
EMPTY_DICT, EMPTY_TUPLE = b"}", b")"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """BININT when it fits, else LONG1."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    n_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n_bytes]) + value.to_bytes(n_bytes, "little", signed=True)


def symbol(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def group(*items: bytes) -> bytes:
    """A tuple of any length."""
    return b"(" + b"".join(items) + b"t"


def numbers(values: tuple[int, ...]) -> bytes:
    return group(*(number(v) for v in values))


def call(function: bytes, *args: bytes) -> bytes:
    return function + group(*args) + b"R"


ORDERED_DICT = symbol("collections", "OrderedDict") + b")R"
REBUILD_TENSOR = symbol("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = symbol("torch._utils", "_rebuild_parameter")


def storage(key: str = "0", n_items: int = 6, kind: str = "FloatStorage") -> bytes:
    return group(text("storage"), symbol("torch", kind), text(key), text("cpu"), number(n_items)) + b"Q"


def tensor(
    stored: bytes | None = None,
    *,
    offset: bytes | int = 0,
    shape: bytes | tuple[int, ...] = (2, 3),
    stride: bytes | tuple[int, ...] = (3, 1),
    requires_grad: bytes = FALSE,
    hooks: bytes = ORDERED_DICT,
) -> bytes:
    """A float32 tensor [2, 3] in storage 0 of six items, unless told otherwise; bytes are taken as they are."""
    return call(
        REBUILD_TENSOR,
        storage() if stored is None else stored,
        offset if isinstance(offset, bytes) else number(offset),
        shape if isinstance(shape, bytes) else numbers(shape),
        stride if isinstance(stride, bytes) else numbers(stride),
        requires_grad,
        hooks,
    )


def dict_of(*pairs: tuple[bytes, bytes], empty: bytes = EMPTY_DICT) -> bytes:
    return empty + b"(" + b"".join(k + v for k, v in pairs) + b"u"


def whole(value: bytes) -> bytes:
    """A complete pickle that returns `value`."""
    return PROTO + value + STOP


def state_dict(**tensors: bytes) -> bytes:
    """A complete pickle of a dict of tensors."""
    return whole(dict_of(*((text(name), value) for name, value in tensors.items())))
