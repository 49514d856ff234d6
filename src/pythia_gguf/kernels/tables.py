"""A table of 32 numbers looked up by lanes, where the processor can do that in a register.

can_look_up()   whether look_up is one instruction here: a constant, so the other branch is not compiled
look_up(t, i)   t[i] lane by lane, t a tuple of 32 float32, i in 0..31
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import x86_feature
from pythia_gguf.kernels.numba_private import get_or_insert_function
from pythia_gguf.kernels.simd import F32, LANES


def _has_avx512(context: Any) -> bool:
    return x86_feature(context, "avx512f")


@intrinsic
def can_look_up(typing_context):
    """True where the processor permutes registers by an index in another one (AVX-512)."""

    def emit(context, builder, sig, args):
        return context.get_constant(types.boolean, _has_avx512(context))

    return types.boolean(), emit


@intrinsic
def look_up(typing_context, table, index):
    """table[index] in every lane.

    table  tuple of 32 float32, constant
    index  integer lanes, 0..31
    Raises nothing; compiles to nothing useful where `can_look_up` is false, where it must not be reached.
    """

    def emit(context, builder, sig, args):
        if not _has_avx512(context):
            return ir.Constant(F32.llvm, ir.Undefined)
        half, ints = ir.VectorType(ir.FloatType(), 16), ir.VectorType(ir.IntType(32), 16)
        kind = ir.FunctionType(half, [half, ints, half])
        permute = get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.ps.512")
        tables = []
        for start in (0, 16):
            part = ir.Constant(half, ir.Undefined)
            for i in range(16):
                entry = builder.extract_value(args[0], start + i)
                part = builder.insert_element(part, entry, ir.Constant(ir.IntType(32), i))
            tables.append(part)
        picked = [
            builder.call(permute, [tables[0], _part(builder, args[1], start), tables[1]])
            for start in range(0, LANES, 16)
        ]
        return _joined(builder, picked)

    return F32(table, index), emit


def _part(builder: ir.IRBuilder, vector: ir.Value, start: int) -> ir.Value:
    """16 lanes of a vector."""
    order = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(start, start + 16)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """The lanes of two vectors one after the other."""
    assert len(parts) == 2
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(range(LANES)))
    return builder.shuffle_vector(parts[0], parts[1], order)
