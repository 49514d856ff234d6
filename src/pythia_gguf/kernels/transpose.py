"""Turns tiles of 16 x 16 elements in registers.

transpose16(a, start, stride, b, start, stride)  a tile of float32 or uint8
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import has_wide_registers, x86_feature
from pythia_gguf.kernels.simd import Vector, index_of, pointer_to


@intrinsic
def transpose16(typing_context, source, source_start, source_stride, target, target_start, target_stride):
    """target[start + c * stride + r] = source[start + r * stride + c] for r, c in 0..15; arrays of one element type."""

    def emit(context, builder, sig, args):
        align = source.dtype.bitwidth // 8

        def at(n, array_type, array, start, start_type, stride, stride_type, row, column):
            step = builder.mul(index_of(context, builder, stride, stride_type), ir.Constant(ir.IntType(64), row))
            place = builder.add(index_of(context, builder, start, start_type), step)
            place = builder.add(place, ir.Constant(ir.IntType(64), column))
            kind = Vector(source.dtype, n).llvm.as_pointer()
            return builder.bitcast(pointer_to(context, builder, array_type, array, place), kind)

        def read(n, row, column):
            value = builder.load(at(n, source, args[0], args[1], source_start, args[2], source_stride, row, column))
            value.align = align
            return value

        def write(value, row, column):
            n = value.type.count
            place = at(n, target, args[3], args[4], target_start, args[5], target_stride, row, column)
            builder.store(value, place).align = align

        if source.dtype == types.float32 and x86_feature(context, "avx2") and not has_wide_registers(context):
            _turn_by_eights(builder, read, write)
        else:
            _turn_by_sixteens(builder, read, write)
        return context.get_dummy_value()

    return types.void(source, source_start, source_stride, target, target_start, target_stride), emit


def _turn_by_sixteens(builder: ir.IRBuilder, read: Callable, write: Callable) -> None:
    """A tile turned by four perfect shuffles of its 16 rows."""
    rows = [read(16, r, 0) for r in range(16)]
    for _ in range(4):
        pairs = [_interleave(builder, rows[i], rows[i + 8]) for i in range(8)]
        rows = [half for pair in pairs for half in pair]
    for c in range(16):
        write(rows[c], c, 0)


def _interleave(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    n = a.type.count
    halves = []
    for start in (0, n // 2):
        order = [start + i // 2 + (n if i % 2 else 0) for i in range(n)]
        halves.append(builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), n), order)))
    return halves[0], halves[1]


def _turn_by_eights(builder: ir.IRBuilder, read: Callable, write: Callable) -> None:
    """A 16 x 16 tile of float32 turned in registers of 8, whose instructions shuffle within quarters of 16 bytes.

    Each register is loaded from two rows, four apart, so only one quarter of the shuffles of whole rows is needed.
    """

    def shuffled(a: ir.Value, b: ir.Value, order: list[int]) -> ir.Value:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))

    for row in (0, 8):
        for column in range(0, 16, 4):
            a, b, c, d = (
                shuffled(read(4, row + i, column), read(4, row + i + 4, column), list(range(8))) for i in range(4)
            )
            low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
            for i, order in enumerate((low, high)):
                ab, cd = shuffled(a, b, order), shuffled(c, d, order)
                write(shuffled(ab, cd, [0, 1, 8, 9, 4, 5, 12, 13]), column + 2 * i, row)
                write(shuffled(ab, cd, [2, 3, 10, 11, 6, 7, 14, 15]), column + 2 * i + 1, row)
