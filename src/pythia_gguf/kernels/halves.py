"""Numbers in half precision, read as float32 and written from it."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import has_half_conversion
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import to_half
from pythia_gguf.kernels.simd import LANES, Vector, index_of, pointer_to, store


def widened_half(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """float16 bit patterns of finite values as float32: the bits moved, and 2**112 for the difference of exponents."""
    n = halves.type.count
    words, numbers = ir.VectorType(ir.IntType(32), n), ir.VectorType(ir.FloatType(), n)

    def lanes(value: int) -> ir.Constant:
        return ir.Constant(words, [value] * n)

    wide = builder.zext(halves, words)
    magnitude = builder.bitcast(builder.shl(builder.and_(wide, lanes(0x7FFF)), lanes(13)), numbers)
    scaled = builder.fmul(magnitude, ir.Constant(numbers, [2.0**112] * n))
    sign = builder.shl(builder.and_(wide, lanes(0x8000)), lanes(16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, words), sign), numbers)


@intrinsic
def load_number16(typing_context, array, index):
    """16 consecutive elements, float32 or uint16 (float16 bit patterns of finite values), as float32 lanes."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        value = builder.load(builder.bitcast(at, Vector(array.dtype, 16).llvm.as_pointer()))
        value.align = array.dtype.bitwidth // 8
        if array.dtype == types.float32:
            return value
        if has_half_conversion(context):  # one instruction, the same values
            return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), 16)), sig.return_type.llvm)
        return widened_half(builder, value)

    return Vector(types.float32, 16)(array, index), emit


@intrinsic
def _has_halves(typing_context):
    """Whether the CPU that is compiled for turns float32 into float16; LLVM drops the branch that is not taken."""

    def emit(context, builder, sig, args):
        return ir.Constant(ir.IntType(1), has_half_conversion(context))

    return types.boolean(), emit


@intrinsic
def _store_halves(typing_context, array, index, value):
    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        halves = builder.fptrunc(args[2], ir.VectorType(ir.HalfType(), LANES))
        stored = builder.store(halves, builder.bitcast(at, halves.type.as_pointer()))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, index, value), emit


@inlined
def store_number16(array, index, v, words):
    """LANES float32 to consecutive elements: as they are, or as float16 bit patterns into uint16, nearest even.

    words  i32 [LANES], scratch
    """
    if array.itemsize == 4:
        store(array, index, v)
    elif _has_halves():
        _store_halves(array, index, v)
    else:
        store(words, 0, to_half(v))
        for j in range(LANES):
            array[index + j] = words[j]
