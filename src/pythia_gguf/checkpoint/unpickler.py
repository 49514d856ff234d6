"""State dict pickle -> names and places of its tensors, without running anything the pickle asks for.

Names of functions and classes are never looked up: the few that a state dict needs are symbols, and what they would
build is described, not built. Entries that training code puts beside the weights (a step, a list, the state of an
optimizer) are named by their kind. An allow list refuses everything else.

Source: the opcodes of protocols 2 to 5 are those of Lib/pickletools.py (CPython 3.11); what torch.save writes:
torch/serialization.py and torch/_utils.py (2.13.0).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pythia_gguf.checkpoint.pickled import (
    BESIDE,
    BYTES,
    EMPTY_TUPLE,
    FROM_TYPE,
    LATER_DTYPES,
    LATER_TENSOR,
    LIST,
    NEEDED,
    OBJECT,
    ORDERED_DICT,
    PARAMETERS,
    SET,
    STORAGE_DTYPES,
    TENSOR,
    TYPES,
    Dict,
    Other,
    StateDict,
    Storage,
    StoredTensor,
    Symbol,
    Tuple,
    Value,
    kind_of,
    seal,
    whole_numbers,
)
from pythia_gguf.checkpoint.tensor import ITEM_BYTES, MAX_DIMS, MAX_TENSORS
from pythia_gguf.errors import ModelFileError

MAX_OPCODES = 2_000_000
MAX_STACK = 100_000
MAX_DEPTH = 32
_MAX_LINE_BYTES = 256
_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # protocols 2 to 5
_SAVE_AGAIN = "Save model.state_dict() alone: torch.save(model.state_dict(), FILE)"
# A tuple or dict of torch takes 11 bytes of pickle or more; a flood of one-byte "}" must not fill the memory.
_BYTES_PER_CONTAINER = 8
_FREE_CONTAINERS = 16


def read_state_dict(data: bytes | bytearray, *, path: Path, start: int = 0) -> StateDict:
    """What a pickled state dict holds.

    data   the pickle, protocol 2 to 5
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
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: list[Value] = []
        self._n_containers = 0
        self._n_tensors = 0
        self._storages: set[str] = set()

    def run(self) -> StateDict:
        """Run to STOP and return the state dict."""
        if not self._data.startswith(_STARTS):
            raise self._error(f"expected a pickle of protocol 2 to 5. {_SAVE_AGAIN}")
        self._next = 2
        for _ in range(MAX_OPCODES):
            self._at = self._next
            code = self._take(1)[0]
            if code == ord("."):
                return self._finish()
            if code not in _OPCODES:
                raise self._error(f"opcode {_opcode_name(code)} has no place in a state dict. {_SAVE_AGAIN}")
            _OPCODES[code](self)
            if len(self._stack) + len(self._marks) > MAX_STACK:
                raise self._error(f"more than {MAX_STACK} values on the stack")
        raise self._error(f"more than {MAX_OPCODES} opcodes")

    def _finish(self) -> StateDict:
        if self._next != len(self._data):
            raise self._error(f"{len(self._data) - self._next} bytes follow the end of the pickle")
        value = self._pop()
        if self._stack or self._marks:
            raise self._error("values are left over at the end of the pickle")
        if not isinstance(value, Dict):
            raise self._error(f"expected a state dict, got {kind_of(value)}. {_SAVE_AGAIN}")
        tensors = {key: item for key, item in value.items.items() if isinstance(item, StoredTensor)}
        left_out = {key: kind_of(item) for key, item in value.items.items() if key not in tensors}
        for key in left_out:
            inner = value.items[key]
            if isinstance(inner, Dict) and inner.n_tensors > len(tensors):
                raise self._error(
                    f"the tensors lie under {key[:80]!r}. Save them alone:"
                    f" torch.save(torch.load(FILE)[{key[:80]!r}], FILE)"
                )
        return StateDict(tensors=tensors, left_out=left_out, storages=frozenset(self._storages))

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

    def _pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._error("takes a value from an empty stack")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Value]:
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
            raise self._error(f"nested deeper than {MAX_DEPTH}. {_SAVE_AGAIN}")
        return inner + 1

    # Opcodes

    def _constant(self, value: Value) -> None:
        self._stack.append(value)

    def _unicode(self, layout: str) -> None:
        self._stack.append(self._text(self._take(self._number(layout))))

    def _float(self) -> None:
        (value,) = struct.unpack(">d", self._take(8))
        self._stack.append(value)

    def _other(self, other: Other, layout: str = "") -> None:
        """Push the kind alone and skip the bytes; `layout` says how their length is stored."""
        if layout:
            self._take(self._number(layout))
        self._stack.append(other)

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def _global(self) -> None:
        self._symbol(self._line(), self._line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self._error("expected the name of a function or class")
        self._symbol(module, name)

    def _symbol(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in NEEDED and not BESIDE.fullmatch(full):
            raise self._error(f"refused {full[:120]!r}: no part of a state dict. {_SAVE_AGAIN}")
        self._stack.append(Symbol(name=full))

    def _skip_frame(self) -> None:
        self._take(8)  # it says how many bytes follow, for readers of streams

    def _put(self, layout: str) -> None:
        index = self._number(layout)
        if index != len(self._memo):
            raise self._error(f"memo entry {index} where {len(self._memo)} comes next")
        self._memoize()

    def _memoize(self) -> None:
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
        self._stack.append(Dict(is_ordered=False))

    def _tuple(self, items: list[Value]) -> None:
        self._count_container()
        depth = self._depth_around(max((seal(v) for v in items), default=0))
        self._stack.append(Tuple(items=tuple(items), depth=depth))

    def _tuple_of(self, n_items: int) -> None:
        self._tuple([self._pop() for _ in range(n_items)][::-1])

    def _add(self, target: Other, *, is_one: bool = False) -> None:
        """Add an item, or those up to the mark, to a list or set whose kind alone is kept."""
        if is_one:
            self._pop()
        else:
            self._pop_to_mark()
        found = self._pop()
        self._stack.append(found)
        if found is not target:
            raise self._error(f"adds to {kind_of(found)}, expected {target.kind}")

    def _set_pairs(self, pairs: list[Value]) -> None:
        target = self._pop()
        self._stack.append(target)
        if not isinstance(target, Dict) or target.is_sealed:
            raise self._error(f"sets an item of {kind_of(target)}")
        if len(pairs) % 2:
            raise self._error("sets a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):  # numbers, in the state of an optimizer; no name of a tensor
                key = f"<{kind_of(key)}>"
            elif key in target.items:
                raise self._error(f"key {key[:80]!r} appears twice")
            if value is target:
                raise self._error("dict holds itself")
            target.depth = max(target.depth, self._depth_around(seal(value)))
            target.n_tensors += isinstance(value, StoredTensor)
            target.items[key] = value

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        self._stack.append(target)
        if not isinstance(target, Dict) or not target.is_ordered or not isinstance(state, Dict):
            raise self._error(f"sets the state of {kind_of(target)}: only an OrderedDict may have attributes")

    def _persistent_id(self) -> None:
        value = self._pop()
        match value:
            case Tuple(items=("storage", Symbol(name=name), str(key), str(), int(n_items))):
                pass
            case _:
                raise self._error("expected ('storage', type, key, location, items) as persistent id")
        if name not in STORAGE_DTYPES:
            raise self._error(f"{name} is not a type of storage")
        if not (key.isascii() and key.isdigit() and len(key) <= 6):
            raise self._error(f"storage key {key[:40]!r}: expected 1 to 6 digits")
        if isinstance(n_items, bool) or n_items < 0:
            raise self._error(f"storage {key}: expected a number of items, got {n_items}")
        self._storages.add(key)
        self._stack.append(Storage(dtype=STORAGE_DTYPES[name], key=key, n_items=n_items))

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        name = function.name if isinstance(function, Symbol) else kind_of(function)
        if not isinstance(args, Tuple):
            raise self._error(f"calls {name} with {kind_of(args)} instead of a tuple")
        match args.items:
            case () if name == ORDERED_DICT:
                self._count_container()
                self._stack.append(Dict(is_ordered=True))
            case (Storage() as storage, offset, shape, stride, bool(), Dict() as hooks) if name == TENSOR:
                self._check_no_hooks(hooks)
                self._stack.append(self._tensor(storage, offset, shape, stride))
            case (Storage() as storage, offset, shape, stride, bool(), Dict() as hooks, Symbol(name=dtype)) if (
                name == LATER_TENSOR
            ):
                self._check_no_hooks(hooks)
                self._stack.append(self._later_tensor(storage, offset, shape, stride, dtype))
            case (StoredTensor() | Other() as tensor, bool(), Dict() as hooks, *_) if name in PARAMETERS:
                self._check_no_hooks(hooks)
                self._stack.append(tensor)
            case (Symbol() as inner, Symbol(name=kind), Tuple() as inner_args, _) if (
                name == FROM_TYPE and kind in TYPES
            ):
                self._stack += [inner, inner_args]
                self._reduce()
            case _ if BESIDE.fullmatch(name):
                self._stack.append(OBJECT)
            case _:
                raise self._error(f"calls {name} with arguments that plain weights do not need. {_SAVE_AGAIN}")

    def _check_no_hooks(self, hooks: Dict) -> None:
        if hooks.items:
            raise self._error("tensor has backward hooks")

    def _tensor(self, storage: Storage, offset: Value, shape: Value, stride: Value) -> StoredTensor:
        self._n_tensors += 1
        if self._n_tensors > MAX_TENSORS:
            raise self._error(f"more than {MAX_TENSORS} tensors")
        sizes, steps = whole_numbers(shape), whole_numbers(stride)
        places = whole_numbers(Tuple(items=(offset,), depth=1))
        if sizes is None or steps is None or places is None or len(sizes) != len(steps) or len(sizes) > MAX_DIMS:
            raise self._error(
                f"tensor in storage {storage.key}: expected an offset and up to {MAX_DIMS} sizes and strides, 0 or more"
            )
        return StoredTensor(storage=storage, offset=places[0], shape=sizes, stride=steps)

    def _later_tensor(self, storage: Storage, offset: Value, shape: Value, stride: Value, dtype: str) -> Value:
        """A tensor whose type stands beside the storage; the kind alone where no weights have that type."""
        found = self._tensor(storage, offset, shape, stride)
        if dtype not in LATER_DTYPES:
            return Other(kind="a tensor of a type that is not read")
        item_bytes = ITEM_BYTES[LATER_DTYPES[dtype]]
        items = replace(storage, dtype=LATER_DTYPES[dtype], n_items=storage.n_items // item_bytes)
        return replace(found, storage=items)


_OPCODES: dict[int, Callable[[_Machine], None]] = {
    ord("N"): lambda m: m._constant(None),
    0x88: lambda m: m._constant(True),
    0x89: lambda m: m._constant(False),
    ord("J"): lambda m: m._constant(m._number("<i")),
    ord("K"): lambda m: m._constant(m._number("<B")),
    ord("M"): lambda m: m._constant(m._number("<H")),
    0x8A: _Machine._long,
    ord("G"): _Machine._float,
    ord("X"): lambda m: m._unicode("<I"),
    0x8C: lambda m: m._unicode("<B"),
    ord("B"): lambda m: m._other(BYTES, "<I"),
    ord("C"): lambda m: m._other(BYTES, "<B"),
    ord("]"): lambda m: m._other(LIST),
    ord("a"): lambda m: m._add(LIST, is_one=True),
    ord("e"): lambda m: m._add(LIST),
    0x8F: lambda m: m._other(SET),
    0x90: lambda m: m._add(SET),
    0x95: _Machine._skip_frame,
    ord("c"): _Machine._global,
    0x93: _Machine._stack_global,
    0x94: _Machine._memoize,
    ord("("): lambda m: m._marks.append(len(m._stack)),
    ord("q"): lambda m: m._put("<B"),
    ord("r"): lambda m: m._put("<I"),
    ord("h"): lambda m: m._get("<B"),
    ord("j"): lambda m: m._get("<I"),
    ord("}"): _Machine._dict,
    ord(")"): lambda m: m._constant(EMPTY_TUPLE),
    0x85: lambda m: m._tuple_of(1),
    0x86: lambda m: m._tuple_of(2),
    0x87: lambda m: m._tuple_of(3),
    ord("t"): lambda m: m._tuple(m._pop_to_mark()),
    ord("s"): lambda m: m._set_pairs([m._pop(), m._pop()][::-1]),
    ord("u"): lambda m: m._set_pairs(m._pop_to_mark()),
    ord("b"): _Machine._build,
    ord("Q"): _Machine._persistent_id,
    ord("R"): _Machine._reduce,
}


def _opcode_name(code: int) -> str:
    # Imported here because only a refusal needs it: pickletools brings pickle with it.
    import pickletools

    return next((op.name for op in pickletools.opcodes if op.code == chr(code)), f"0x{code:02x}")
