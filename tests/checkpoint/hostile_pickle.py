"""Pickles that must be refused, each with one thing a state dict does not need.

It is written without the reader under test, so that a mistake of that reader cannot hide. Each is put into a zip
without a lie by the tests.
"""

from __future__ import annotations

import pickletools

from checkpoint.case import Case
from checkpoint.craft_pickle import (
    EMPTY_DICT,
    FALSE,
    NONE,
    ORDERED_DICT,
    PROTO,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    STOP,
    TRUE,
    call,
    dict_of,
    group,
    number,
    numbers,
    state_dict,
    storage,
    symbol,
    tensor,
    text,
    whole,
)

ALLOWED = {
    *("PROTO", "GLOBAL", "MARK", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINUNICODE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE", "NONE", "BINPUT", "LONG_BINPUT", "BINGET"),
    *("LONG_BINGET", "BINPERSID", "REDUCE", "SETITEM", "SETITEMS", "BUILD", "STOP"),
    # Of protocols 3 to 5, and of what may stand beside tensors.
    *("FRAME", "MEMOIZE", "STACK_GLOBAL", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINFLOAT"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_SET", "ADDITEMS"),
}
A = text("a")


def opcode_cases() -> list[Case]:
    """Every opcode that exists and is not allowed, as the first thing a pickle does."""
    return [
        Case(
            f"opcode {op.name}", PROTO + op.code.encode("latin-1") + bytes(16) + STOP, f"opcode {op.name} has no place"
        )
        for op in pickletools.opcodes
        if op.name not in ALLOWED
    ]


def _called(module: str, name: str) -> Case:
    data = state_dict(a=tensor(), b=call(symbol(module, name), text("id")))
    return Case(f"calls {module}.{name}", data, f"refused '{module}.{name}'".encode("unicode_escape").decode())


def _memo_chain(n_levels: int) -> bytes:
    """Tuples of twice the tuple before: 2**n_levels items for whoever expands them."""
    out = b")q\x00"
    for i in range(n_levels):
        out += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return whole(out)


def _cycle() -> bytes:
    """A dict inside of a tuple inside of the dict."""
    return whole(EMPTY_DICT + b"q\x00" + A + b"h\x00\x85s")


def _view(n_items: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    return state_dict(a=tensor(storage(n_items=n_items), offset=offset, shape=shape, stride=stride))


STRUCTURE = [
    Case("empty", b"", "expected a pickle of protocol 2 to 5"),
    Case("text protocol", b"(dp0\n.", "expected a pickle of protocol 2 to 5"),
    *(Case(f"protocol {n}", b"\x80" + bytes([n]) + b"}.", "expected a pickle of protocol 2 to 5") for n in (0, 1, 6)),
    *(Case(f"protocol {n}", b"\x80" + bytes([n]) + b"}.", "holds no tensors") for n in (2, 3, 4, 5)),
    Case("frame cut short", b"\x80\x04\x95\x00\x00", "pickle is cut short"),
    Case("bytes of 4 GiB", PROTO + b"B\xff\xff\xff\xffabc.", "pickle is cut short"),
    Case("float cut short", PROTO + b"G\x00", "pickle is cut short"),
    Case("memo of nothing in protocol 4", b"\x80\x04\x94.", "takes a value from an empty stack"),
    Case("name that is no text", b"\x80\x04K\x01K\x02\x93.", "expected the name of a function or class"),
    Case("call of protocol 4", b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "refused 'posix.system'"),
    Case("appends to a dict", whole(b"}K\x01a"), "adds to a dict, expected a list"),
    Case("appends to a set", whole(b"\x8fK\x01a"), "adds to a set, expected a list"),
    Case("appends to nothing", PROTO + b"(K\x01e.", "takes a value from an empty stack"),
    Case("adds to a list", whole(b"](K\x01\x90"), "adds to a list, expected a set"),
    Case("protocol only", PROTO, "pickle is cut short"),
    Case("protocol twice", PROTO + PROTO + b"}.", "opcode PROTO has no place"),
    Case("no stop", PROTO + b"}", "pickle is cut short"),
    Case("stop on an empty stack", PROTO + STOP, "takes a value from an empty stack"),
    Case("bytes after the end", state_dict(a=tensor()) + b"x", "1 bytes follow the end"),
    Case("second pickle after the end", state_dict(a=tensor()) * 2, "follow the end of the pickle"),
    Case("value left over", whole(b"K\x01" + EMPTY_DICT), "values are left over"),
    Case("mark left over", whole(b"(" + EMPTY_DICT), "values are left over"),
    Case("byte that is no opcode", PROTO + b"\xff.", "opcode 0xff has no place"),
    Case("tuple without mark", PROTO + b"K\x01t.", "a mark that is not there"),
    Case("tuple across a mark", PROTO + b"K\x01(\x85.", "takes a value from an empty stack"),
    Case("reduce on an empty stack", PROTO + b"R.", "takes a value from an empty stack"),
    Case("memo never stored", PROTO + b"h\x05.", "memo entry 5 was never stored"),
    Case("long memo never stored", PROTO + b"j\xff\xff\xff\xff.", "memo entry 4294967295 was never stored"),
    Case("memo with a gap", PROTO + b"}q\x07.", "memo entry 7 where 0 comes next"),
    Case("memo at the far end", PROTO + b"}r\xff\xff\xff\xff.", "memo entry 4294967295 where 0 comes next"),
    Case("memo of nothing", PROTO + b"q\x00.", "takes a value from an empty stack"),
    Case("number cut short", PROTO + b"J\x00\x00", "pickle is cut short"),
    Case("number without its bytes", PROTO + b"\x8a\xff" + bytes(17) + STOP, "pickle is cut short"),
    Case("string of 4 GiB", PROTO + b"X\xff\xff\xff\xffabc.", "pickle is cut short"),
    Case("string is not UTF-8", PROTO + b"X\x01\x00\x00\x00\xff.", "not valid UTF-8"),
    Case("global without an end", PROTO + b"ccollections", "name without an end"),
    Case("global of 1 MB", PROTO + b"c" + b"a" * (1 << 20) + b"\nb\n.", "name without an end"),
    Case("global is not UTF-8", PROTO + b"c\xff\nb\n.", "not valid UTF-8"),
    Case("nested tuples", whole(text("a" * 400) + b"\x85" * 50), "nested deeper than 32"),
    Case("100000 nested tuples", whole(b")" + b"\x85" * 100_000), "nested deeper than 32"),
    Case("nested dicts", whole(EMPTY_DICT + (A + EMPTY_DICT) * 40 + b"s" * 40), "nested deeper than 32"),
    Case("tuples that double", _memo_chain(40), "nested deeper than 32"),
    Case("cycle through a tuple", _cycle(), "sets an item of a dict"),
    Case("cycle", whole(EMPTY_DICT + b"q\x00" + A + b"h\x00s"), "dict holds itself"),
    Case("stack of 100001 marks", whole(b"(" * 100_001), "more than 100000 values on the stack"),
    Case("100000 dicts", whole(b"(" + b"}" * 100_000 + b"t"), "far more tuples and dicts than tensors need"),
    Case("2000001 opcodes", PROTO + b"}" + b"(u" * 1_000_000 + STOP, "more than 2000000 opcodes"),
]

CALLS = [
    _called("os", "system"),
    _called("posix", "system"),
    _called("builtins", "eval"),
    _called("__builtin__", "exec"),
    _called("pkgutil", "resolve_name"),
    _called("pip", "main"),
    _called("torch", "load"),
    _called("torch.hub", "load"),
    _called("torch._utils", "_rebuild_tensor"),
    _called("torch._utils", "_rebuild_qtensor"),
    _called("torch._utils", "_rebuild_wrapper_subclass"),
    _called("torch._utils", "_rebuild_tensor_v2 "),
    Case(
        "tensor of a type of its own",
        whole(
            call(symbol("torch._tensor", "_rebuild_from_type_v2"), REBUILD_TENSOR, symbol("torch", "Size"), b")", NONE)
        ),
        "that plain weights do not need",
    ),
    _called("torch.storage", "_load_from_bytes"),
    _called("torch", "QInt8Storage"),
    _called("numpy.core.multiarray", "_reconstruct"),
    _called("collections", "Counters"),
    _called("torch", "float32.x"),
    _called("torch", "Sizes"),
    _called("collections.OrderedDict", "fromkeys"),
    _called("collections\u200b", "OrderedDict"),
    Case("calls a string", whole(A + b")R"), "calls a string with arguments"),
    Case("calls without a tuple", whole(symbol("collections", "OrderedDict") + A + b"R"), "instead of a tuple"),
    Case(
        "OrderedDict with items", whole(call(symbol("collections", "OrderedDict"), A)), "that plain weights do not need"
    ),
    Case("calls a function of tensors", whole(call(REBUILD_PARAMETER, A)), "that plain weights do not need"),
    Case(
        "calls a storage type",
        whole(call(symbol("torch", "FloatStorage"), number(9))),
        "that plain weights do not need",
    ),
    Case(
        "tensor of two arguments", whole(call(REBUILD_TENSOR, storage(), number(0))), "that plain weights do not need"
    ),
    Case(
        "tensor with metadata",
        whole(
            call(REBUILD_TENSOR, storage(), number(0), numbers((6,)), numbers((1,)), FALSE, ORDERED_DICT, EMPTY_DICT)
        ),
        "that plain weights do not need",
    ),
    Case("tensor without storage", state_dict(a=tensor(NONE)), "that plain weights do not need"),
    Case("tensor of a tensor", state_dict(a=tensor(tensor())), "that plain weights do not need"),
    Case("tensor with hooks", state_dict(a=tensor(hooks=dict_of((A, A)))), "tensor has backward hooks"),
    Case("hooks are None", state_dict(a=tensor(hooks=NONE)), "that plain weights do not need"),
    Case("requires_grad is a number", state_dict(a=tensor(requires_grad=number(0))), "that plain weights do not need"),
    Case(
        "parameter of a dict",
        state_dict(a=call(REBUILD_PARAMETER, EMPTY_DICT, TRUE, ORDERED_DICT)),
        "_rebuild_parameter with arguments that plain weights do not need",
    ),
    Case("parameter with hooks", state_dict(a=call(REBUILD_PARAMETER, tensor(), TRUE, dict_of((A, A)))), "hooks"),
]

DICTS = [
    Case("result is a number", whole(number(7)), "expected a state dict, got a number"),
    Case("result is a tensor", whole(tensor()), "expected a state dict, got a tensor"),
    Case("result is a tuple", whole(group(A, tensor())), "expected a state dict, got a tuple"),
    Case("result is a symbol", whole(symbol("torch", "FloatStorage")), "expected a state dict, got torch.FloatStorage"),
    Case("no tensors", whole(EMPTY_DICT), "holds no tensors"),
    Case("a training checkpoint", state_dict(epoch=number(3), model=EMPTY_DICT), "holds no tensors"),
    Case("nested state dict", state_dict(model=dict_of((A, tensor()))), "the tensors lie under 'model'. Save them"),
    Case("value is a storage", state_dict(a=storage()), "holds no tensors"),
    Case("value is None", state_dict(a=NONE), "holds no tensors"),
    Case("key is a number", whole(dict_of((number(1), tensor()))), "tensor name '<a number>'"),
    Case("key is a tuple", whole(dict_of((group(A), tensor()))), "tensor name '<a tuple>'"),
    Case("key twice", whole(dict_of((A, tensor()), (A, tensor()))), "key 'a' appears twice"),
    Case("key without value", whole(EMPTY_DICT + b"(" + A + b"u"), "sets a key without a value"),
    Case("sets an item of a tuple", whole(b")" + A + A + b"s"), "sets an item of a tuple"),
    Case("sets an item of a tensor", whole(tensor() + A + A + b"s"), "sets an item of a tensor"),
    Case("sets an item of a string", whole(A + A + A + b"s"), "sets an item of a string"),
    Case("state of a dict", whole(EMPTY_DICT + dict_of((text("_metadata"), EMPTY_DICT)) + b"b"), "only an OrderedDict"),
    Case("state of a tensor", whole(tensor() + dict_of((text("_metadata"), EMPTY_DICT)) + b"b"), "state of a tensor"),
    Case("state is a tuple", whole(ORDERED_DICT + b")b"), "may have attributes"),
    Case("name climbs", whole(dict_of((text("../a"), tensor()))), "tensor name '../a'"),
    Case("name is empty", whole(dict_of((text(""), tensor()))), "tensor name ''"),
    Case("name with newline", whole(dict_of((text("a\n"), tensor()))), "tensor name"),
]

STORAGES = [
    Case("persistent id is text", state_dict(a=tensor(text("x") + b"Q")), "as persistent id"),
    Case(
        "persistent id of four",
        state_dict(a=tensor(group(text("storage"), symbol("torch", "FloatStorage"), text("0"), number(6)) + b"Q")),
        "as persistent id",
    ),
    Case(
        "persistent id of another kind",
        state_dict(a=tensor(group(text("module"), symbol("torch", "FloatStorage"), A, A, number(6)) + b"Q")),
        "as persistent id",
    ),
    Case(
        "storage of no type",
        state_dict(a=tensor(group(text("storage"), symbol("collections", "OrderedDict"), A, A, number(6)) + b"Q")),
        "collections.OrderedDict is not a type of storage",
    ),
    *(
        Case(f"storage key {key!r}", state_dict(a=tensor(storage(key))), "expected 1 to 6 digits")
        for key in ("", "x", "../0", "-1", "1234567", "\u0663", "0\n")
    ),
    Case("storage of -1 items", state_dict(a=tensor(storage(n_items=-1))), "expected a number of items, got -1"),
    Case(
        "storage of true items",
        state_dict(a=tensor(group(text("storage"), symbol("torch", "FloatStorage"), text("0"), A, TRUE) + b"Q")),
        "expected a number of items",
    ),
    Case("storage larger than its record", state_dict(a=tensor(storage(n_items=7))), "expected 28 bytes, got 24"),
    Case("storage of 2**62 items", state_dict(a=tensor(storage(n_items=2**62))), "expected 18446744073709551616 bytes"),
    Case("storage of another type", state_dict(a=tensor(storage(kind="HalfStorage"))), "expected 12 bytes, got 24"),
    Case("storage that is not there", state_dict(a=tensor(storage("5"))), "storage 5 is missing"),
    Case(
        "storage of two types",
        state_dict(a=tensor(), b=tensor(storage(n_items=12, kind="HalfStorage"))),
        "tensor b: storage 0 has two types or sizes",
    ),
]

VIEWS = [
    Case("offset is negative", state_dict(a=tensor(offset=-1)), "expected an offset and up to 8 sizes"),
    Case("offset is true", state_dict(a=tensor(offset=TRUE)), "expected an offset and up to 8 sizes"),
    Case("offset is text", state_dict(a=tensor(offset=A)), "expected an offset and up to 8 sizes"),
    Case("shape is a number", state_dict(a=tensor(shape=number(6))), "expected an offset and up to 8 sizes"),
    Case("shape is negative", state_dict(a=tensor(shape=(-2, 3))), "expected an offset and up to 8 sizes"),
    Case("shape holds text", state_dict(a=tensor(shape=group(A, A))), "expected an offset and up to 8 sizes"),
    Case("shape without strides", state_dict(a=tensor(stride=(1,))), "expected an offset and up to 8 sizes"),
    Case("stride is negative", state_dict(a=tensor(stride=(-3, 1))), "expected an offset and up to 8 sizes"),
    Case("nine axes", _view(6, 0, (1,) * 9, (1,) * 9), "expected an offset and up to 8 sizes"),
    Case("one item too far", _view(6, 0, (7,), (1,)), "tensor a: reaches beyond storage 0 of 6 items"),
    Case("one row too far", _view(6, 3, (2, 3), (3, 1)), "tensor a: reaches beyond storage 0"),
    Case("offset after the storage", _view(6, 7, (0,), (1,)), "tensor a: reaches beyond storage 0"),
    Case("offset beyond 64 bits", _view(6, 2**63 - 1, (6,), (1,)), "tensor a: reaches beyond storage 0"),
    Case("stride that wraps", _view(6, 0, (3, 2), (2**63 - 1, 1)), "tensor a: reaches beyond storage 0"),
    Case("shape that wraps", _view(6, 0, (2**62, 4), (4, 1)), "tensor a: reaches beyond storage 0"),
    Case("expanded", _view(6, 0, (2**40, 6), (0, 1)), "tensors overlap"),
    Case("all strides zero", _view(6, 0, (2**40,), (0,)), "tensors overlap"),
    Case("transposed, one too far", _view(6, 1, (3, 2), (1, 3)), "tensor a: reaches beyond storage 0"),
    Case("every second item, one too far", _view(6, 0, (4,), (2,)), "tensor a: reaches beyond storage 0"),
]


def many_aliases(n_aliases: int, n_items: int) -> bytes:
    """A state dict of tensors that all lie in one storage."""
    view = tensor(storage(n_items=n_items), shape=(n_items,), stride=(1,))
    first = text("a0") + view + b"q\x00"
    rest = b"".join(text(f"a{i}") + b"h\x00" for i in range(1, n_aliases))
    return whole(EMPTY_DICT + b"(" + first + rest + b"u")


def many_tensors(n_tensors: int) -> bytes:
    """A state dict of tensors without items, the parts they share kept in the memo."""
    shared = [symbol("torch._utils", "_rebuild_tensor_v2"), storage(n_items=0), ORDERED_DICT]
    parts = b"".join(value + b"q" + bytes([i]) for i, value in enumerate(shared))
    one = b"h\x00(h\x01K\x00))\x89h\x02tRs"
    named = b"".join(b"X\x05\x00\x00\x00" + b"%05d" % i + one for i in range(n_tensors))
    return PROTO + group(parts) + EMPTY_DICT + named + STOP


CASES = [*STRUCTURE, *opcode_cases(), *CALLS, *DICTS, *STORAGES, *VIEWS]
