"""Memory by its address: arrays over it inside kernels, and aligned arrays for it.

Kernels with a C entry point get addresses; the code that makes the list of their calls has checked sizes.
"""

from __future__ import annotations

import contextlib
import mmap
import sys

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import array_at

ALIGNMENT_BYTES = 64


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Zeros that begin on a cache line; pages that are never touched take no memory."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = np.zeros(n_bytes + ALIGNMENT_BYTES, np.uint8)
    skip = -whole.ctypes.data % ALIGNMENT_BYTES
    return whole[skip : skip + n_bytes].view(dtype).reshape(shape)


class Pages:
    """Zeros that begin on a page, and whose pages can go back to the operating system one by one.

    array  u8 [n_bytes]; pages that are never touched take no memory
    """

    def __init__(self, n_bytes: int) -> None:
        """Large pages, where the system has them: reading is faster by up to a half."""
        self._map = None
        if sys.platform == "linux":
            # Private, so that a forked process has memory of its own.
            try:
                self._map = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as e:
                raise MemoryError(f"Unable to allocate {n_bytes:,} bytes") from e
            with contextlib.suppress(OSError):
                self._map.madvise(mmap.MADV_HUGEPAGE)
        self.array = aligned((n_bytes,), np.uint8) if self._map is None else np.frombuffer(self._map, np.uint8, n_bytes)

    def release(self, first: int, last: int) -> None:
        """Give back the pages that lie whole in bytes first .. last - 1; they read as zeros then.

        Elsewhere than on Linux they stay, with their content.
        """
        start, end = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is not None and start < end:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


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


def _scratch(element: types.Type, llvm: ir.Type):
    """Uninitialised memory of a kernel's own; it is there until the kernel returns."""

    @intrinsic
    def scratch(typing_context, n):
        def emit(context, builder, sig, args):
            # On the stack: memory from Numba would need Numba when the kernel runs.
            room = builder.alloca(llvm, args[0])
            room.align = ALIGNMENT_BYTES
            return array_at(context, builder, sig.return_type, room, args[0])

        return types.Array(element, 1, "C")(types.intp), emit

    return scratch


# Each takes a number of elements and gives an array that begins on a cache line.
scratch_f32 = _scratch(types.float32, ir.FloatType())
scratch_i32 = _scratch(types.int32, ir.IntType(32))
scratch_u8 = _scratch(types.uint8, ir.IntType(8))


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
