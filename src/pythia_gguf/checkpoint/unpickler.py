"""State dict pickle -> names and places of its tensors, without running anything the pickle asks for.

Knows nothing of zips or files. Names of functions and classes are never looked up: the few that a state dict needs are
symbols, and what they would build is described, not built. Everything else is refused, by an allow list.

Source: the opcodes of protocol 2 are those of Lib/pickletools.py (CPython 3.11); what torch.save writes and what its
own restricted reader accepts: torch/serialization.py, torch/_utils.py and torch/_weights_only_unpickler.py (2.13.0).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pythia_gguf.checkpoint.tensor import MAX_DIMS, MAX_TENSORS
from pythia_gguf.errors import ModelFileError

MAX_OPCODES = 2_000_000
MAX_STACK = 100_000
MAX_DEPTH = 8
_MAX_LINE_BYTES = 256
# A tuple or dict of torch takes 11 bytes of pickle or more; a flood of one-byte "}" must not fill the memory.
_BYTES_PER_CONTAINER = 8
_FREE_CONTAINERS = 16

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
}
_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"


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


@dataclass(frozen=True, slots=True)
class _Symbol:
    """A name the pickle mentions; never the thing itself."""

    name: str


@dataclass(slots=True)
class _Tuple:
    items: tuple[_Value, ...]
    depth: int


@dataclass(slots=True)
class _Dict:
    """A dict that cannot change once it is part of something else, so that no cycle can be built."""

    is_ordered: bool
    items: dict[str, _Value] = field(default_factory=dict)
    depth: int = 1
    is_sealed: bool = False


_EMPTY_TUPLE = _Tuple((), 1)
_Value = None | bool | int | str | _Symbol | Storage | StoredTensor | _Tuple | _Dict


def read_state_dict(data: bytes | bytearray, *, path: Path, start: int = 0) -> dict[str, StoredTensor]:
    """Names -> tensors of a pickled state dict, in the order of the pickle.

    data   the pickle, protocol 2
    path   the file it is in, and
    start  its position there, both for messages
    Raises ModelFileError for everything a state dict does not need.
    """
    return _Machine(data, path, start).run()


class _Machine:
    """The pickle machine: a stack, marks into it, and a memo of earlier values."""

    def __init__(self, data: bytes | bytearray, path: Path, start: int) -> None:
        self._data = data
        self._path = path
        self._start = start
        self._at = 0  # the opcode that is running
        self._next = 0  # the first byte after what was read
        self._stack: list[_Value] = []
        self._marks: list[int] = []
        self._memo: list[_Value] = []
        self._n_containers = 0
        self._n_tensors = 0

    def run(self) -> dict[str, StoredTensor]:
        """Run to STOP and return the state dict."""
        if self._data[:2] != b"\x80\x02":
            raise self._error("expected a pickle of protocol 2")
        self._next = 2
        for _ in range(MAX_OPCODES):
            self._at = self._next
            code = self._take(1)[0]
            if code == ord("."):
                return self._finish()
            if code not in _OPCODES:
                raise self._error(f"opcode {_opcode_name(code)} has no place in a state dict")
            _OPCODES[code](self)
            if len(self._stack) + len(self._marks) > MAX_STACK:
                raise self._error(f"more than {MAX_STACK} values on the stack")
        raise self._error(f"more than {MAX_OPCODES} opcodes")

    def _finish(self) -> dict[str, StoredTensor]:
        if self._next != len(self._data):
            raise self._error(f"{len(self._data) - self._next} bytes follow the end of the pickle")
        value = self._pop()
        if self._stack or self._marks:
            raise self._error("values are left over at the end of the pickle")
        if not isinstance(value, _Dict):
            raise self._error(f"expected a state dict, got {_kind(value)}. Save model.state_dict() alone")
        tensors: dict[str, StoredTensor] = {}
        for key, item in value.items.items():
            if not isinstance(item, StoredTensor):
                raise self._error(
                    f"key {key[:80]!r}: expected a tensor, got {_kind(item)}. Save model.state_dict() alone"
                )
            tensors[key] = item
        return tensors

    def _error(self, message: str) -> ModelFileError:
        return ModelFileError(message, path=self._path, field="pickle", offset=self._start + self._at)

    # Reading the pickle, and the stack

    def _take(self, n_bytes: int) -> bytes | bytearray:
        end = self._next + n_bytes
        if end > len(self._data):
            raise self._error("pickle is cut short")
        taken = self._data[self._next : end]
        self._next = end
        return taken

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return int(value)

    def _text(self, raw: bytes | bytearray) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as e:
            raise self._error("string is not valid UTF-8") from e

    def _line(self) -> str:
        end = self._data.find(b"\n", self._next, self._next + _MAX_LINE_BYTES)
        if end < 0:
            raise self._error(f"name without an end in {_MAX_LINE_BYTES} bytes")
        text = self._text(self._data[self._next : end])
        self._next = end + 1
        return text

    def _pop(self) -> _Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._error("takes a value from an empty stack")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[_Value]:
        if not self._marks:
            raise self._error("takes values up to a mark that is not there")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _count_container(self) -> None:
        self._n_containers += 1
        if self._n_containers > _FREE_CONTAINERS + len(self._data) // _BYTES_PER_CONTAINER:
            raise self._error("far more tuples and dicts than tensors need")

    def _depth_around(self, inner: int) -> int:
        if inner >= MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}")
        return inner + 1

    # Opcodes

    def _constant(self, value: _Value) -> None:
        self._stack.append(value)

    def _unicode(self) -> None:
        self._stack.append(self._text(self._take(self._number("<I"))))

    def _long(self) -> None:
        n_bytes = self._number("<B")
        if n_bytes > 8:
            raise self._error(f"number of {n_bytes} bytes is too large")
        self._stack.append(int.from_bytes(self._take(n_bytes), "little", signed=True))

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in (_ORDERED_DICT, _TENSOR, _PARAMETER) and name not in STORAGE_DTYPES:
            raise self._error(f"refused {name[:120]!r}: no part of a state dict. Save model.state_dict() alone")
        self._stack.append(_Symbol(name))

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _put(self, layout: str) -> None:
        index = self._number(layout)
        if index != len(self._memo):
            raise self._error(f"memo entry {index} where {len(self._memo)} comes next")
        value = self._pop()
        self._stack.append(value)
        self._memo.append(value)

    def _get(self, layout: str) -> None:
        index = self._number(layout)
        if index >= len(self._memo):
            raise self._error(f"memo entry {index} was never stored")
        self._stack.append(self._memo[index])

    def _dict(self) -> None:
        self._count_container()
        self._stack.append(_Dict(is_ordered=False))

    def _tuple(self, items: list[_Value]) -> None:
        self._count_container()
        depth = self._depth_around(max((_seal(v) for v in items), default=0))
        self._stack.append(_Tuple(tuple(items), depth))

    def _tuple_of(self, n_items: int) -> None:
        self._tuple([self._pop() for _ in range(n_items)][::-1])

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_pairs([key, value])

    def _set_pairs(self, pairs: list[_Value]) -> None:
        target = self._pop()
        self._stack.append(target)
        if not isinstance(target, _Dict) or target.is_sealed:
            raise self._error(f"sets an item of {_kind(target)}")
        if len(pairs) % 2:
            raise self._error("sets a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise self._error(f"expected a string as key, got {_kind(key)}")
            if key in target.items:
                raise self._error(f"key {key[:80]!r} appears twice")
            if value is target:
                raise self._error("dict holds itself")
            target.depth = max(target.depth, self._depth_around(_seal(value)))
            target.items[key] = value

    def _build(self) -> None:
        state = self._pop()
        target = self._pop()
        self._stack.append(target)
        is_metadata = isinstance(state, _Dict) and set(state.items) == {"_metadata"}
        if not isinstance(target, _Dict) or not target.is_ordered or not is_metadata:
            raise self._error(f"sets the state of {_kind(target)}: only an OrderedDict may carry _metadata")

    def _persistent_id(self) -> None:
        value = self._pop()
        match value:
            case _Tuple(items=("storage", _Symbol(name=name), str(key), str(), int(n_items))):
                pass
            case _:
                raise self._error("expected ('storage', type, key, location, items) as persistent id")
        if name not in STORAGE_DTYPES:
            raise self._error(f"{name} is not a type of storage")
        if not (key.isascii() and key.isdigit() and len(key) <= 6):
            raise self._error(f"storage key {key[:40]!r}: expected 1 to 6 digits")
        if isinstance(n_items, bool) or n_items < 0:
            raise self._error(f"storage {key}: expected a number of items, got {n_items}")
        self._stack.append(Storage(dtype=STORAGE_DTYPES[name], key=key, n_items=n_items))

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Symbol) else _kind(function)
        if not isinstance(args, _Tuple):
            raise self._error(f"calls {name} with {_kind(args)} instead of a tuple")
        match args.items:
            case () if name == _ORDERED_DICT:
                self._count_container()
                self._stack.append(_Dict(is_ordered=True))
            case (Storage() as storage, offset, shape, stride, bool(), _Dict() as hooks) if name == _TENSOR:
                self._check_no_hooks(hooks)
                self._stack.append(self._tensor(storage, offset, shape, stride))
            case (StoredTensor() as tensor, bool(), _Dict() as hooks) if name == _PARAMETER:
                self._check_no_hooks(hooks)
                self._stack.append(tensor)
            case _:
                raise self._error(f"calls {name} with arguments torch.save does not write")

    def _check_no_hooks(self, hooks: _Dict) -> None:
        if hooks.items:
            raise self._error("tensor has backward hooks")

    def _tensor(self, storage: Storage, offset: _Value, shape: _Value, stride: _Value) -> StoredTensor:
        self._n_tensors += 1
        if self._n_tensors > MAX_TENSORS:
            raise self._error(f"more than {MAX_TENSORS} tensors")
        sizes, steps = _whole_numbers(shape), _whole_numbers(stride)
        places = _whole_numbers(_Tuple((offset,), 1))
        if sizes is None or steps is None or places is None or len(sizes) != len(steps) or len(sizes) > MAX_DIMS:
            raise self._error(
                f"tensor in storage {storage.key}: expected an offset and up to {MAX_DIMS} sizes and strides, 0 or more"
            )
        return StoredTensor(storage=storage, offset=places[0], shape=sizes, stride=steps)


_OPCODES: dict[int, Callable[[_Machine], None]] = {
    ord("N"): lambda m: m._constant(None),
    0x88: lambda m: m._constant(True),
    0x89: lambda m: m._constant(False),
    ord("J"): lambda m: m._constant(m._number("<i")),
    ord("K"): lambda m: m._constant(m._number("<B")),
    ord("M"): lambda m: m._constant(m._number("<H")),
    0x8A: _Machine._long,
    ord("X"): _Machine._unicode,
    ord("c"): _Machine._global,
    ord("("): _Machine._mark,
    ord("q"): lambda m: m._put("<B"),
    ord("r"): lambda m: m._put("<I"),
    ord("h"): lambda m: m._get("<B"),
    ord("j"): lambda m: m._get("<I"),
    ord("}"): _Machine._dict,
    ord(")"): lambda m: m._constant(_EMPTY_TUPLE),
    0x85: lambda m: m._tuple_of(1),
    0x86: lambda m: m._tuple_of(2),
    0x87: lambda m: m._tuple_of(3),
    ord("t"): lambda m: m._tuple(m._pop_to_mark()),
    ord("s"): _Machine._set_item,
    ord("u"): lambda m: m._set_pairs(m._pop_to_mark()),
    ord("b"): _Machine._build,
    ord("Q"): _Machine._persistent_id,
    ord("R"): _Machine._reduce,
}


def _seal(value: _Value) -> int:
    """Close a dict to changes, and say how deeply `value` is nested."""
    if isinstance(value, _Dict):
        value.is_sealed = True
        return value.depth
    return value.depth if isinstance(value, _Tuple) else 0


def _whole_numbers(value: _Value) -> tuple[int, ...] | None:
    """The items of a tuple of integers that are not negative; None for anything else."""
    if not isinstance(value, _Tuple):
        return None
    numbers = tuple(v for v in value.items if isinstance(v, int) and not isinstance(v, bool) and v >= 0)
    return numbers if len(numbers) == len(value.items) else None


def _kind(value: _Value) -> str:
    """What a value is, in a word, for messages: never its contents, which the file chose."""
    if isinstance(value, _Symbol):
        return value.name
    names = {_Dict: "a dict", _Tuple: "a tuple", StoredTensor: "a tensor", Storage: "a storage", str: "a string"}
    return names.get(type(value), "a number" if isinstance(value, int) else "None")


def _opcode_name(code: int) -> str:
    # Imported here because only a refusal needs it: pickletools brings pickle with it.
    import pickletools

    return next((op.name for op in pickletools.opcodes if op.code == chr(code)), f"0x{code:02x}")
