"""Memory by its address: arrays over it inside kernels, and aligned arrays for it.

Knows no model. Kernels with a C entry point get addresses; whoever makes the list of their calls has checked sizes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from pythia_gguf.kernels.jit import inlined

ALIGNMENT_BYTES = 64


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Zeros that begin on a cache line; pages that are never touched take no memory."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = np.zeros(n_bytes + ALIGNMENT_BYTES, np.uint8)
    skip = -whole.ctypes.data % ALIGNMENT_BYTES
    return whole[skip : skip + n_bytes].view(dtype).reshape(shape)


def _pointer(element: types.Type, llvm: ir.Type):
    @intrinsic
    def pointer(typing_context, address):
        def emit(context, builder, sig, args):
            return builder.inttoptr(args[0], llvm.as_pointer())

        return types.CPointer(element)(types.int64), emit

    return pointer


_f32_pointer = _pointer(types.float32, ir.FloatType())
_i64_pointer = _pointer(types.int64, ir.IntType(64))
_i32_pointer = _pointer(types.int32, ir.IntType(32))
_u16_pointer = _pointer(types.uint16, ir.IntType(16))
_u8_pointer = _pointer(types.uint8, ir.IntType(8))


@inlined
def f32_at(address, n):
    """n float32 at an address."""
    return carray(_f32_pointer(address), (n,))


@inlined
def i64_at(address, n):
    """n int64 at an address."""
    return carray(_i64_pointer(address), (n,))


@inlined
def i32_at(address, n):
    """n int32 at an address."""
    return carray(_i32_pointer(address), (n,))


@inlined
def u16_at(address, n):
    """n uint16 at an address."""
    return carray(_u16_pointer(address), (n,))


@inlined
def u8_at(address, n):
    """n uint8 at an address."""
    return carray(_u8_pointer(address), (n,))


@intrinsic
def call_at(typing_context, address, arguments):
    """Call the C function at an address with a tuple of int64; it returns nothing and holds no interpreter lock."""

    def emit(context, builder, sig, args):
        word = ir.IntType(64)
        n = len(arguments)
        kind = ir.FunctionType(ir.VoidType(), [word] * n)
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [builder.extract_value(args[1], i) for i in range(n)])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), emit
