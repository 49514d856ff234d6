"""Vectors of 16 lanes of 32 bits, one lane a row of weights, for matrix products.

Sixteen rows lie side by side: a vector of words holds four consecutive columns of each, one byte a column.

    words(a, i)              16 int32 from byte i of a uint8 array
    halves(a, i)             16 float16 from byte i, as float32
    small(a, i), signed(a, i)  16 unsigned or signed bytes from byte i, as int32
    shorts(a, i)             16 unsigned int16 from byte i, as int32
    no_words(), no_floats()  zeros
    floats(v), as_floats(v)  int32 lanes -> float32: the same number, the same bits
    as_words(v)              the bits of float32 lanes
    spread(x, i)             x[i], int32, in every lane
    lowered(w, n)            every byte of w minus n
    moved(i, n, j)(w)        bits i .. i + n - 1 of every byte of w, at j .. j + n - 1; all else zero
    fused(a, b, c)           a * b + c, a and b vectors or scalars; rounded once where the processor can, else twice
    prefetch(a, i)           ask for the cache line of a[i], which may lie behind the end of a, to come into the
                             second cache: the first one has few places for lines on their way
    prefetch_ahead(a, i, n)  the same for n bytes that will be read a little after byte i
    number(x, i)             the float32 whose bits are x[i], x int32; no index counts from the end
    store_pair(x, i, a, b)   two vectors one after the other, from x[i]
    levels(table, w)         table[b] for every byte b < 16 of the words

`+ - * & | << >>` work as in kernels/simd.py. Dot products of bytes are in kernels/dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import has_fused, has_half_conversion, is_arm, register_bytes, x86_feature
from pythia_gguf.kernels.halves import widened_half
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import get_or_insert_function
from pythia_gguf.kernels.simd import Vector, index_of, pointer_to, store

I32X16 = Vector(types.int32, 16)
F32X16 = Vector(types.float32, 16)
_BYTE, _HALF, _WORD = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_BYTES = ir.VectorType(_BYTE, 64)
# Size of registers -> LLVM's name of the instruction that looks up bytes in 16 others.
_LOOK_UPS = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.aarch64.neon.tbl1.v16i8"}
AHEAD_BYTES = 2048


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _load(builder: ir.IRBuilder, at: ir.Value, kind: ir.Type) -> ir.Value:
    value = builder.load(builder.bitcast(at, kind.as_pointer()))
    value.align = 1
    return value


def by_register(builder: ir.IRBuilder, name: str, n_bytes: int, element: ir.Type, *values: ir.Value) -> ir.Value:
    """A function of LLVM that takes registers of `n_bytes`, 64, 32 or 16, called with vectors of 64 bytes.

    element  of the result
    """

    def call(*parts: ir.Value) -> ir.Value:
        first = parts[0].type
        result = ir.VectorType(element, first.count * first.element.width // element.width)
        kind = ir.FunctionType(result, [v.type for v in parts])
        return builder.call(get_or_insert_function(builder.module, kind, name), parts)

    return in_registers(builder, n_bytes, call, *values)


def in_registers(builder: ir.IRBuilder, n_bytes: int, operation: Callable, *values: ir.Value) -> ir.Value:
    """The result of an operation on registers of `n_bytes`, done with vectors of 64 bytes."""
    first = values[0].type
    if first.count * first.element.width == 8 * n_bytes:
        return operation(*values)
    parts = [in_registers(builder, n_bytes, operation, *halves_of(builder, values, i)) for i in (0, 1)]
    n = 2 * parts[0].type.count
    return builder.shuffle_vector(*parts, ir.Constant(ir.VectorType(_WORD, n), list(range(n))))


def halves_of(builder: ir.IRBuilder, values: Iterable[ir.Value], which: int) -> list[ir.Value]:
    """The lower or the upper half of vectors."""
    halves = []
    for v in values:
        n = v.type.count // 2
        order = ir.Constant(ir.VectorType(_WORD, n), list(range(which * n, which * n + n)))
        halves.append(builder.shuffle_vector(v, ir.Constant(v.type, ir.Undefined), order))
    return halves


def _reader(result: Vector, convert: Any) -> Any:
    @intrinsic
    def read(typing_context, array, index):
        def emit(context, builder, sig, args):
            at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
            return convert(context, builder, at)

        return result(array, index), emit

    return read


def _read_halves(context: Any, builder: ir.IRBuilder, at: ir.Value) -> ir.Value:
    if has_half_conversion(context):
        return builder.fpext(_load(builder, at, ir.VectorType(ir.HalfType(), 16)), F32X16.llvm)
    return widened_half(builder, _load(builder, at, ir.VectorType(_HALF, 16)))


words = _reader(I32X16, lambda context, builder, at: _load(builder, at, I32X16.llvm))
halves = _reader(F32X16, _read_halves)
small = _reader(I32X16, lambda c, b, at: b.zext(_load(b, at, ir.VectorType(_BYTE, 16)), I32X16.llvm))
shorts = _reader(I32X16, lambda c, b, at: b.zext(_load(b, at, ir.VectorType(_HALF, 16)), I32X16.llvm))
signed = _reader(I32X16, lambda c, b, at: b.sext(_load(b, at, ir.VectorType(_BYTE, 16)), I32X16.llvm))


def _zeros(vector: Vector) -> Any:
    @intrinsic
    def zeros(typing_context):
        return vector(), lambda context, builder, sig, args: ir.Constant(vector.llvm, None)

    return zeros


no_words = _zeros(I32X16)
no_floats = _zeros(F32X16)


@intrinsic
def floats(typing_context, value):
    """int32 lanes as float32."""
    return F32X16(value), lambda context, builder, sig, args: builder.sitofp(args[0], F32X16.llvm)


@intrinsic
def as_floats(typing_context, value):
    """The same bits as float32."""
    return F32X16(value), lambda context, builder, sig, args: builder.bitcast(args[0], F32X16.llvm)


@intrinsic
def as_words(typing_context, value):
    """The bits of float32 lanes as int32."""
    return I32X16(value), lambda context, builder, sig, args: builder.bitcast(args[0], I32X16.llvm)


def _spread(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, undefined, _constant(ir.VectorType(_WORD, lanes), 0))


@intrinsic
def spread(typing_context, x, index):
    """x[index], int32, in every lane; no index counts from the end."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, x, args[0], index_of(context, builder, args[1], index))
        return _spread(builder, builder.load(at), 16)

    return I32X16(x, index), emit


@intrinsic
def lowered(typing_context, value, by):
    """Subtract a number from each byte of the words, without borrowing from its neighbour."""

    def emit(context, builder, sig, args):
        bytes_each = _spread(builder, builder.trunc(args[1], _BYTE), 64)
        return builder.bitcast(builder.sub(builder.bitcast(args[0], _BYTES), bytes_each), I32X16.llvm)

    return I32X16(value, by), emit


@cache
def moved(source: int, n_bits: int, target: int) -> Any:
    """Make the function that moves bits `source` .. `source + n_bits - 1` of every byte to `target`, all else zero.

    On processors that multiply bytes with a matrix of bits (GFNI) it is one instruction, elsewhere a shift and a mask.
    """
    kept = ((1 << n_bits) - 1) << target
    # Row 7 - i of the matrix says which bits of a byte make bit i of the result.
    matrix = sum(1 << (i - target + source) << 8 * (7 - i) for i in range(target, target + n_bits))

    @intrinsic
    def move(typing_context, value):
        def emit(context, builder, sig, args):
            if source != target and x86_feature(context, "gfni") and x86_feature(context, "avx512f"):
                kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES, _BYTE])
                function = get_or_insert_function(builder.module, kind, "llvm.x86.vgf2p8affineqb.512")
                rows = builder.bitcast(ir.Constant(ir.VectorType(ir.IntType(64), 8), [matrix] * 8), _BYTES)
                moved_bytes = builder.call(function, [builder.bitcast(args[0], _BYTES), rows, ir.Constant(_BYTE, 0)])
                return builder.bitcast(moved_bytes, I32X16.llvm)
            # ARM shifts bytes too, and needs no mask where the shift has left nothing else.
            lanes, ones = (_BYTES, 1) if is_arm(context) else (I32X16.llvm, 0x01010101)
            shift = builder.lshr if source > target else builder.shl
            shifted = shift(builder.bitcast(args[0], lanes), _constant(lanes, abs(source - target)))
            return builder.bitcast(builder.and_(shifted, _constant(lanes, kept * ones)), I32X16.llvm)

        return I32X16(value), emit

    return move


@intrinsic
def fused(typing_context, a, b, c):
    """a * b + c lane by lane, a scalar for all lanes; one rounding with FMA, two without."""
    (vector,) = {v for v in (a, b, c) if isinstance(v, Vector)}

    def emit(context, builder, sig, args):
        x, y, z = (
            value if isinstance(given, Vector) else _spread(builder, value, vector.lanes)
            for value, given in zip(args, sig.args, strict=True)
        )
        if not has_fused(context):
            return builder.fadd(builder.fmul(x, y), z)
        kind = ir.FunctionType(vector.llvm, [vector.llvm] * 3)
        return builder.call(get_or_insert_function(builder.module, kind, f"llvm.fma.v{vector.lanes}f32"), [x, y, z])

    return vector(a, b, c), emit


def ask_for_line(builder: ir.IRBuilder, at: ir.Value, nearness: int) -> None:
    """LLVM's prefetch of the line at a byte pointer, for reading; nearness 3 is the first cache, 2 the second."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD, _WORD, _WORD])
    function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [at, ir.Constant(_WORD, 0), ir.Constant(_WORD, nearness), ir.Constant(_WORD, 1)])


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line of array[index]; nothing is read, so no index is wrong."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        ask_for_line(builder, builder.bitcast(at, ir.IntType(8).as_pointer()), 2)
        return context.get_dummy_value()

    return types.void(array, index), emit


@inlined
def prefetch_ahead(data, at, n_bytes):
    """Ask for bytes so far after byte `at` that memory can answer in time."""
    for line in range(0, n_bytes, 64):
        prefetch(data, at + AHEAD_BYTES + line)


@intrinsic
def number(typing_context, x, index):
    """The float32 whose bits are x[index]; no index counts from the end."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, x, args[0], index_of(context, builder, args[1], index))
        return builder.load(builder.bitcast(at, ir.FloatType().as_pointer()))

    return types.float32(x, index), emit


@intrinsic
def levels(typing_context, table, value):
    """table[b] for every byte b of the words, b < 16.

    table  uint8 array of 64: the 16 entries four times
    """

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, table, args[0], ir.Constant(ir.IntType(64), 0))
        entries, index = _load(builder, at, _BYTES), builder.bitcast(args[1], _BYTES)
        n_bytes = register_bytes(context)
        if n_bytes:
            found_bytes = by_register(builder, _LOOK_UPS[n_bytes], n_bytes, _BYTE, entries, index)
            return builder.bitcast(found_bytes, I32X16.llvm)
        # Four choices between neighbours, bit by bit of the index; LLVM has no permutation of bytes without SSSE3.
        found = [
            builder.shuffle_vector(entries, ir.Constant(_BYTES, ir.Undefined), _constant(ir.VectorType(_WORD, 64), i))
            for i in range(16)
        ]
        for bit in (1, 2, 4, 8):
            is_set = builder.icmp_unsigned("!=", builder.and_(index, _constant(_BYTES, bit)), _constant(_BYTES, 0))
            found = [builder.select(is_set, found[i + 1], found[i]) for i in range(0, len(found), 2)]
        return builder.bitcast(found[0], I32X16.llvm)

    return I32X16(table, value), emit


@inlined
def store_pair(x, at, a, b):
    """Store two vectors side by side: two groups of 16 rows, or 32 positions of a head."""
    store(x, at, a)
    store(x, at + 16, b)
