"""Numbers in half precision, read as float32.

Knows no format of weights; the way back is in kernels/lanes.py.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.simd import Vector, has_feature, index_of, pointer_to


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
        if has_feature(context, "f16c"):  # one instruction, the same values
            return builder.fpext(builder.bitcast(value, ir.VectorType(ir.HalfType(), 16)), sig.return_type.llvm)
        return widened_half(builder, value)

    return Vector(types.float32, 16)(array, index), emit
