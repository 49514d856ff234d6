"""Small tables looked up by lanes, where the processor can do that in a register.

can_look_up()        with AVX-512; a constant, so that the other branch is not compiled
look_up(t, i)        t[i] lane by lane, t a tuple of 32 float32, i in 0..31
can_look_up_bytes()  with AVX2 and no AVX-512
byte_table(t)(v)     every byte b of 16 lanes becomes t[b & 15], t a tuple of 16 bytes; no b may be above 127
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import has_wide_registers, x86_feature
from pythia_gguf.kernels.numba_private import get_or_insert_function
from pythia_gguf.kernels.simd import Vector
from pythia_gguf.kernels.words import by_register

_BYTE = ir.IntType(8)


def _permutes_floats(context: Any) -> bool:
    return has_wide_registers(context)


def _permutes_bytes(context: Any) -> bool:
    return x86_feature(context, "avx2") and not _permutes_floats(context)


def _question(answer: Callable[[Any], bool]) -> Callable:
    @intrinsic
    def can(typing_context):
        def emit(context, builder, sig, args):
            return context.get_constant(types.boolean, answer(context))

        return types.boolean(), emit

    return can


can_look_up = _question(_permutes_floats)
can_look_up_bytes = _question(_permutes_bytes)


@intrinsic
def look_up(typing_context, table, index):
    """table[index] in every lane.

    table  tuple of 32 float32, constant
    index  integer lanes, 0..31
    Raises nothing; compiles to nothing useful where `can_look_up` is false, where it must not be reached.
    """
    result = Vector(types.float32, index.lanes)

    def emit(context, builder, sig, args):
        if not _permutes_floats(context):
            return ir.Constant(result.llvm, ir.Undefined)
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
            for start in range(0, index.lanes, 16)
        ]
        return _joined(builder, picked)

    return result(table, index), emit


def _part(builder: ir.IRBuilder, vector: ir.Value, start: int) -> ir.Value:
    """16 lanes of a vector."""
    order = ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(start, start + 16)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """The lanes of two vectors one after the other."""
    first, second = parts
    order = ir.Constant(ir.VectorType(ir.IntType(32), 32), list(range(32)))
    return builder.shuffle_vector(first, second, order)


@cache
def byte_table(entries: tuple[int, ...]) -> Any:
    """Make the function that looks up every byte of 16 integer lanes among 16 bytes.

    It compiles to nothing useful where `can_look_up_bytes` is false, where it must not be reached.
    """

    @intrinsic
    def look_up_bytes(typing_context, value):
        def emit(context, builder, sig, args):
            if not _permutes_bytes(context):
                return ir.Constant(args[0].type, ir.Undefined)
            bytes_each = ir.VectorType(_BYTE, 64)
            table = ir.Constant(bytes_each, list(entries * 4))
            index = builder.bitcast(args[0], bytes_each)
            found = by_register(builder, "llvm.x86.avx2.pshuf.b", 32, _BYTE, table, index)
            return builder.bitcast(found, args[0].type)

        return value(value), emit

    return look_up_bytes
