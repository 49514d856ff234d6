"""A tensor that is still on disk: its type, its shape and the bytes of the file that hold it."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from pythia_gguf.errors import ModelFileError

ITEM_BYTES: dict[str, int] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "C64": 8,
    "C128": 16,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
MAX_TENSORS = 65_536
MAX_DIMS = 8
_NAME = re.compile(r"[A-Za-z0-9_.]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyTensor:
    """Where the values of one tensor lie, little-endian.

    name     as the checkpoint spells it
    dtype    a key of ITEM_BYTES
    shape    lengths of the axes, outermost first; () is a single value
    path     the file that holds the bytes
    offset   position of the first byte in that file
    n_bytes  always the product of `shape` times the bytes of one item
    stride   items from one index of an axis to the next, for each axis; None: C order, no gaps
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    n_bytes: int
    stride: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensors:
    """What a file holds: its tensors in reading order, and its other entries as name -> kind ("a number")."""

    tensors: dict[str, LazyTensor]
    left_out: dict[str, str] = field(default_factory=dict)


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; exact, however large the numbers are."""
    return math.prod(shape) * ITEM_BYTES[dtype]


def check_name(name: str, path: str | os.PathLike[str], offset: int | None = None) -> None:
    """Raise ModelFileError unless `name` can be printed, logged and used as a key anywhere."""
    if not _NAME.fullmatch(name):
        raise ModelFileError(
            f"tensor name {name[:80]!r}: expected 1 to 255 letters, digits, '_' and '.'", path=path, offset=offset
        )
