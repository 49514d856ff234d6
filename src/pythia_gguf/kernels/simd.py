"""Vectors of many lanes as Numba values, so that one kernel works on many numbers side by side.

A vector is an LLVM vector: LLVM lowers it to AVX-512, AVX2, SSE2 or NEON registers, and since no instruction here may
be contracted or reordered (no fast-math flags), every lane gives the same bits on each of them.

    load(a, i)           LANES consecutive elements of a float32, int32, uint16 or uint8 array, from flat index i
    load16(a, i)         16 of them
    splat(x), splat16(x) a float32 in each of LANES or 16 lanes
    store(a, i, v)       the reverse
    item(a, i), put(a, i, v)  one element; unlike a[i], no index counts from the end, so nothing is tested
    + - *  /             float lanes; + - * & | ^ << >> integer lanes (>> keeps an int32's sign); scalars count for all
    < <= > >= == !=      -> a mask, false where a lane is NaN (!= is true there)
    select(m, v, w)      v where m, else w;  m & n, m | n;  any_lane(m), all_lanes(m) -> bool
    absolute, root       |v|, sqrt(v)
    bits, from_bits      float lanes <-> the same 32 bits as an integer
    to_float, to_int     integer <-> float lanes; to_int truncates and needs |v| < 2**31
    narrow(v), widen(v)  integer lanes -> their low 8 bits; unsigned bytes or 16-bit words -> integer lanes
    low_half, high_half  half of the lanes
    fold_sum, fold_max   all lanes to one float32, halves onto halves: one fixed order

Sources: LLVM language reference, "Vector Operations"; Numba's extension API ("Low-level extension API").
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model

from pythia_gguf.kernels.numba_private import (
    AbstractTemplate,
    data_of,
    get_or_insert_function,
    infer_global,
    signature,
)

# Two AVX-512 registers: while sums in one wait for each other, the other one fills the pipeline. The order of sums in
# the engine depends on this number; how many groups an encoder works on is in kernels/lanes.py.
LANES = 32

_LLVM_ELEMENTS: dict[Any, ir.Type] = {
    types.float32: ir.FloatType(),
    types.int32: ir.IntType(32),
    types.int16: ir.IntType(16),
    types.uint16: ir.IntType(16),
    types.uint8: ir.IntType(8),
    types.boolean: ir.IntType(1),
}


class Vector(types.Type):
    """The Numba type of a vector of `lanes` elements of a scalar Numba type."""

    def __init__(self, element: types.Type, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"Vector({element} x {lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        """The LLVM type."""
        return ir.VectorType(_LLVM_ELEMENTS[self.element], self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


F32 = Vector(types.float32, LANES)
I32 = Vector(types.int32, LANES)
U8 = Vector(types.uint8, LANES)
MASK = Vector(types.boolean, LANES)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _as_vector(context: Any, builder: ir.IRBuilder, value: ir.Value, given: types.Type, wanted: Vector) -> ir.Value:
    if isinstance(given, Vector):
        return value
    return _broadcast(builder, context.cast(builder, value, given, wanted.element), wanted.lanes)


def _vector_of(args: tuple[types.Type, ...]) -> Vector | None:
    """The common vector type of operands, where scalars may be broadcast; None when they do not fit."""
    vectors = {a for a in args if isinstance(a, Vector)}
    if len(vectors) != 1:
        return None
    vector = vectors.pop()
    for a in args:
        fits = isinstance(a, Vector) or (
            a == types.float32 if vector.element == types.float32 else isinstance(a, types.Integer)
        )
        if not fits:
            return None
    return vector


def _define(op: Callable, emit: Callable[[ir.IRBuilder, Vector, ir.Value, ir.Value], ir.Value], to_mask: bool) -> None:
    @infer_global(op)
    class Template(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict) -> Any:
            vector = _vector_of(args) if len(args) == 2 else None
            result = Vector(types.boolean, vector.lanes) if vector and to_mask else vector
            return result and signature(result, *args)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        vector = _vector_of(sig.args)
        assert vector is not None  # typing has accepted the operands
        a, b = (_as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return emit(builder, vector, a, b)

    for pair in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pair)(lower)


def _arithmetic(op: Callable, on_floats: str | None, on_integers: str | None, on_bytes: str | None = None) -> None:
    name_of: dict[Any, str | None] = {types.float32: on_floats, types.uint8: on_bytes or on_integers}

    def emit(builder: ir.IRBuilder, vector: Vector, a: ir.Value, b: ir.Value) -> ir.Value:
        name = name_of.get(vector.element, on_integers)
        if name is None:
            raise TypeError(f"{op} is not defined for {vector}")
        return getattr(builder, name)(a, b)

    _define(op, emit, to_mask=False)


def _comparison(op: Callable, symbol: str) -> None:
    def emit(builder: ir.IRBuilder, vector: Vector, a: ir.Value, b: ir.Value) -> ir.Value:
        if vector.element != types.float32:
            return builder.icmp_signed(symbol, a, b)
        return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)

    _define(op, emit, to_mask=True)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", None)
_arithmetic(operator.and_, None, "and_")
_arithmetic(operator.or_, None, "or_")
_arithmetic(operator.xor, None, "xor")
_arithmetic(operator.lshift, None, "shl")
_arithmetic(operator.rshift, None, "ashr", "lshr")
for _op, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_op, _symbol)


def pointer_to(context: Any, builder: ir.IRBuilder, array: types.Array, value: ir.Value, index: ir.Value) -> ir.Value:
    """The address of an array's element."""
    return builder.gep(data_of(context, builder, array, value), [index])


def index_of(context: Any, builder: ir.IRBuilder, value: ir.Value, given: types.Type) -> ir.Value:
    """An integer as an index."""
    return context.cast(builder, value, given, types.intp)


def _loader(lanes: int) -> Callable:
    @intrinsic
    def load(typing_context, array, index):
        vector = Vector(array.dtype, lanes)

        def emit(context, builder, sig, args):
            at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
            value = builder.load(builder.bitcast(at, vector.llvm.as_pointer()))
            value.align = array.dtype.bitwidth // 8
            return value

        return vector(array, index), emit

    return load


# Consecutive elements of a C-contiguous array from a flat index; the caller has checked the bounds.
load = _loader(LANES)
load16 = _loader(16)


@intrinsic
def store(typing_context, array, index, value):
    """Write the lanes of `value` to consecutive elements of a C-contiguous array from flat `index`."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        stored = builder.store(args[2], builder.bitcast(at, value.llvm.as_pointer()))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, value), emit


@intrinsic
def item(typing_context, array, index):
    """The element of a C-contiguous array at a flat index."""

    def emit(context, builder, sig, args):
        return builder.load(pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index)))

    return array.dtype(array, index), emit


@intrinsic
def put(typing_context, array, index, value):
    """Write an element, of the array's own type."""
    if value != array.dtype:
        return None

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        builder.store(args[2], at)
        return context.get_dummy_value()

    return types.void(array, index, value), emit


def _splatter(lanes: int) -> Callable:
    @intrinsic
    def splat(typing_context, scalar):
        def emit(context, builder, sig, args):
            return _broadcast(builder, args[0], lanes)

        return Vector(types.float32, lanes)(types.float32), emit

    return splat


# A float32 in every lane.
splat = _splatter(LANES)
splat16 = _splatter(16)


@intrinsic
def select(typing_context, mask, a, b):
    """Lane by lane `a` where `mask`, else `b`; scalars count for all lanes."""
    scalar = types.float32 if types.float32 in (a, b) else types.int32
    vector = _vector_of((a, b)) or Vector(scalar, mask.lanes)

    def emit(context, builder, sig, args):
        return builder.select(
            args[0], _as_vector(context, builder, args[1], a, vector), _as_vector(context, builder, args[2], b, vector)
        )

    return vector(mask, a, b), emit


def _lane_test(symbol: str, constant: int) -> Callable:
    @intrinsic
    def test(typing_context, mask):
        def emit(context, builder, sig, args):
            as_int = builder.bitcast(args[0], ir.IntType(mask.lanes))
            return builder.icmp_unsigned(symbol, as_int, ir.Constant(as_int.type, constant))

        return types.boolean(mask), emit

    return test


any_lane = _lane_test("!=", 0)
all_lanes = _lane_test("==", -1)


def _llvm_function(name: str) -> Callable:
    @intrinsic
    def call(typing_context, value):
        def emit(context, builder, sig, args):
            kind = ir.FunctionType(args[0].type, [args[0].type])
            full = f"llvm.{name}.v{value.lanes}f32"
            return builder.call(get_or_insert_function(builder.module, kind, full), args)

        return value(value), emit

    return call


absolute = _llvm_function("fabs")
root = _llvm_function("sqrt")


def _conversion(instruction: str, element: types.Type) -> Callable:
    @intrinsic
    def convert(typing_context, value):
        result = Vector(element, value.lanes)

        def emit(context, builder, sig, args):
            return getattr(builder, instruction)(args[0], result.llvm)

        return result(value), emit

    return convert


bits = _conversion("bitcast", types.int32)
from_bits = _conversion("bitcast", types.float32)
to_float = _conversion("sitofp", types.float32)
to_int = _conversion("fptosi", types.int32)
narrow = _conversion("trunc", types.uint8)
widen = _conversion("zext", types.int32)


def _half(start: int) -> Callable:
    @intrinsic
    def half(typing_context, value):
        result = Vector(value.element, value.lanes // 2)

        def emit(context, builder, sig, args):
            n = result.lanes
            order = ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(start * n, start * n + n)))
            return builder.shuffle_vector(args[0], ir.Constant(args[0].type, ir.Undefined), order)

        return result(value), emit

    return half


low_half, high_half = _half(0), _half(1)


def _fold(combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]) -> Callable:
    @intrinsic
    def fold(typing_context, value):
        def emit(context, builder, sig, args):
            folded, n = args[0], value.lanes
            while n > 1:
                n //= 2
                undefined = ir.Constant(folded.type, ir.Undefined)
                low, high = (
                    builder.shuffle_vector(
                        folded, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(start, start + n)))
                    )
                    for start in (0, n)
                )
                folded = combine(builder, low, high)
            return builder.extract_element(folded, ir.Constant(ir.IntType(32), 0))

        return types.float32(value), emit

    return fold


fold_sum = _fold(lambda builder, a, b: builder.fadd(a, b))
fold_max = _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
