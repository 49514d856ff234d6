"""What a GGUF file may hold: value types, limits, and the rules of keys, names, alignments and shapes.

reader.py and writer.py hold what they read and write against the same rules.

Layout, all little-endian (llama.cpp 0c1e57098 ggml/src/gguf.cpp; described in ggml docs/gguf.md):

byte 0    magic "GGUF"
byte 4    u32 version: 2 or 3 (3 only added big-endian files, which we refuse)
byte 8    u64 number of tensors
byte 16   u64 number of keys
byte 24   keys      string, u32 type, value; an array is u32 element type, u64 length, elements
          tensors   name, u32 number of axes, u64 per axis (fastest first), u32 format, u64 offset in the data
          zeros up to a multiple of the alignment: here data begins
          data      each tensor padded with zeros to the alignment, the last one too

A string is a u64 length and that many bytes of UTF-8.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from pythia_gguf.formats import FORMATS

Value = str | bool | np.generic | list[str] | np.ndarray
"""A metadata value; its Python type is its GGUF type. A list holds strings, an array has one axis."""
Metadata = dict[str, Value]

MAGIC = b"GGUF"
VERSION = 3
READABLE_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

STRING_TYPE = 8
ARRAY_TYPE = 9
NUMBER_TYPES: dict[int, tuple[str, np.dtype]] = {
    0: ("u8", np.dtype("u1")),
    1: ("i8", np.dtype("i1")),
    2: ("u16", np.dtype("<u2")),
    3: ("i16", np.dtype("<i2")),
    4: ("u32", np.dtype("<u4")),
    5: ("i32", np.dtype("<i4")),
    6: ("f32", np.dtype("<f4")),
    7: ("bool", np.dtype("?")),
    10: ("u64", np.dtype("<u8")),
    11: ("i64", np.dtype("<i8")),
    12: ("f64", np.dtype("<f8")),
}
TYPE_OF_DTYPE: dict[np.dtype, int] = {dtype: type_id for type_id, (_, dtype) in NUMBER_TYPES.items()}

# What a file may ask of us, far above what models hold: at most a million strings, some 20 MB of header.
N_KEYS_MAX = 1 << 16
N_TENSORS_MAX = 1 << 16
N_ARRAY_MAX = 1 << 24
N_STRINGS_MAX = 1 << 22  # in all arrays of a file together, because each becomes a Python object
KEY_BYTES_MAX = (1 << 16) - 1
NAME_BYTES_MAX = 63  # GGML_MAX_NAME less the closing zero
STRING_BYTES_MAX = 16 << 20
HEADER_BYTES_MAX = 256 << 20
N_AXES_MAX = 4
AXIS_MAX = 1 << 40
ALIGNMENT_MAX = 1 << 16

# The description says lower_snake_case; the hyphen is for architectures such as "command-r".
_LEGAL_KEY = re.compile(rb"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor is and what its bytes mean.

    name     unique in its file
    format   key of formats.FORMATS
    shape    NumPy order, rows first: the file stores it reversed
    offset   bytes from the start of the data section, a multiple of the alignment
    n_bytes  without padding
    """

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def n_weights(self) -> int:
        """Weights in all rows."""
        return math.prod(self.shape)

    @property
    def n_rows(self) -> int:
        """Rows of all axes but the last one together; a vector is one row."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.n_bytes // self.n_rows


def padded(n_bytes: int, alignment: int) -> int:
    """`n_bytes` rounded up to a multiple of `alignment`."""
    return -(-n_bytes // alignment) * alignment


def tensor_bytes(format_name: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor without padding, exact for any size; `shape_fault` has found nothing."""
    return FORMATS[format_name].row_bytes(shape[-1]) * math.prod(shape[:-1])


def type_name(value: Value) -> str:
    """The GGUF type of a value as people write it: "u32", "string", "array of f32"; "?" when it has none."""
    if isinstance(value, list):
        return "array of string"
    if isinstance(value, str):
        return "string"
    type_id = number_type(np.asarray(value).dtype)
    name = NUMBER_TYPES[type_id][0] if type_id is not None else "?"
    return f"array of {name}" if isinstance(value, np.ndarray) else name


def number_type(dtype: np.dtype) -> int | None:
    """Type number of a NumPy dtype in either byte order, or None when GGUF has no such number."""
    return TYPE_OF_DTYPE.get(dtype.newbyteorder("<"))


def key_fault(key: bytes) -> str | None:
    """Why `key` is not a legal key, or None."""
    if not key:
        return "empty key"
    if len(key) > KEY_BYTES_MAX:
        return f"key of {len(key)} bytes is too long: at most {KEY_BYTES_MAX}"
    if not _LEGAL_KEY.fullmatch(key):
        shown = key.decode("utf-8", "backslashreplace")
        return f"not a legal key: {shown!r}: expected a-z, 0-9, _ and - in parts joined by dots"
    return None


def name_fault(name: bytes) -> str | None:
    """Why `name` is not a legal tensor name, or None."""
    if not name:
        return "empty tensor name"
    if len(name) > NAME_BYTES_MAX:
        return f"tensor name length {len(name)} exceeds {NAME_BYTES_MAX} bytes"
    try:
        legal = name.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return f"tensor name {name!r} is not UTF-8"
    return None if legal else f"tensor name {name!r} has control characters"


def alignment_fault(value: Value) -> str | None:
    """Why `value` cannot be the alignment of a file, or None."""
    if not isinstance(value, np.uint32):
        return f"expected type u32, got {type_name(value)}"
    n = int(value)
    if n % 8 or n & (n - 1) or not 0 < n <= ALIGNMENT_MAX:
        return f"alignment {n} must be a power of two, a multiple of 8, at most {ALIGNMENT_MAX}"
    return None


def alignment_of(metadata: Metadata) -> int:
    """Alignment of a file with such metadata, in bytes; `alignment_fault` has found nothing."""
    value = metadata.get(ALIGNMENT_KEY)
    return int(value) if isinstance(value, np.uint32) else DEFAULT_ALIGNMENT


def shape_fault(format_name: str, shape: tuple[int, ...]) -> str | None:
    """Why no tensor of this format can have `shape`, or None."""
    if not 1 <= len(shape) <= N_AXES_MAX:
        return f"expected 1 to {N_AXES_MAX} axes, got {len(shape)}"
    for n in shape:
        if not 1 <= n <= AXIS_MAX:
            return f"axis of {n}: expected 1 to {AXIS_MAX}"
    block_weights = FORMATS[format_name].block_weights
    if shape[-1] % block_weights:
        return f"row of {shape[-1]} weights is not a multiple of the {block_weights} of a {format_name} block"
    return None
