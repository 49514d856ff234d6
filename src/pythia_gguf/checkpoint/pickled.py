"""What a state dict pickle may name, and how its values are described: nothing here is ever called or built.

The names are those of torch/_weights_only_unpickler.py (2.13.0) that weights, and plain entries beside them, are saved
with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STORAGE_DTYPES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
    "torch.storage.UntypedStorage": "U8",
}
# Types without a storage of their own: their tensors name them, and lie in a storage of bytes.
LATER_DTYPES = {
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
}
ORDERED_DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
LATER_TENSOR = "torch._utils._rebuild_tensor_v3"
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
# A tensor with attributes is called by another of these, and says what it is.
FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
NEEDED = {ORDERED_DICT, TENSOR, LATER_TENSOR, *PARAMETERS, FROM_TYPE, *TYPES, *STORAGE_DTYPES}
# What entries beside the weights are made of, and torch's restricted reader takes.
BESIDE = re.compile(
    r"collections\.Counter|_codecs\.encode|(?:__builtin__|builtins)\.(?:set|bytearray|complex)"
    r"|torch\.(?:Size|device|bool|(?:b?float|u?int|complex)\d+\w*)"
    r"|torch\.(?:serialization\._get_layout|_utils\._rebuild_(?:sparse_tensor|meta_tensor_no_storage))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A run of items of one type: record `data/KEY` of the zip."""

    dtype: str
    key: str
    n_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A view into a storage; offset and stride count items. Only types and signs have been checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """What a pickle holds.

    tensors   by name, in the order of the pickle
    left_out  entries that are no tensors, as name -> kind: "a number"
    storages  keys of all storages, those of tensors deep in other entries too
    """

    tensors: dict[str, StoredTensor]
    left_out: dict[str, str]
    storages: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A name the pickle mentions; never the thing itself."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuple:
    """A tuple, and how deeply its values nest."""

    items: tuple[Value, ...]
    depth: int


class Dict:
    """A dict that cannot change once it is part of something else, so that no cycle can be built."""

    __slots__ = ("depth", "is_ordered", "is_sealed", "items", "n_tensors")

    def __init__(self, *, is_ordered: bool) -> None:
        self.is_ordered = is_ordered
        self.items: dict[str, Value] = {}
        self.depth, self.n_tensors, self.is_sealed = 1, 0, False


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A value whose kind is kept, but not what it holds."""

    kind: str


EMPTY_TUPLE = Tuple(items=(), depth=1)
LIST, SET, BYTES, OBJECT = (Other(kind=kind) for kind in ("a list", "a set", "bytes", "an object"))
Value = None | bool | int | float | str | Symbol | Storage | StoredTensor | Tuple | Dict | Other


def seal(value: Value) -> int:
    """Close a dict to changes, and say how deeply `value` is nested."""
    if isinstance(value, Dict):
        value.is_sealed = True
        return value.depth
    return value.depth if isinstance(value, Tuple) else 0


def whole_numbers(value: Value) -> tuple[int, ...] | None:
    """The items of a tuple of integers that are not negative; None for anything else."""
    if not isinstance(value, Tuple):
        return None
    numbers = tuple(v for v in value.items if isinstance(v, int) and not isinstance(v, bool) and v >= 0)
    return numbers if len(numbers) == len(value.items) else None


def kind_of(value: Value) -> str:
    """What a value is, in a word, for messages: never its contents, which the file chose."""
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, Other):
        return value.kind
    names = {Dict: "a dict", Tuple: "a tuple", StoredTensor: "a tensor", Storage: "a storage", str: "a string"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "None")
