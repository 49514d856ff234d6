"""Matrix products in tiles of bfloat16: each number of both sides is a sum of two, and a product takes three of theirs.

The kernels have the interface of kernels/matmul.py and need a processor with AMX. Two bfloat16 numbers hold a float16
or bfloat16 weight exactly, and 17 of the 24 bits of a float32 number. Sums are float32, one pair of columns after the
other, the same for one token as for many.

Weights of two groups of 16 rows are unpacked and split, CHUNK_COLUMNS at a time; tokens pass by, 32 at a time. Between
the products of tiles, which have a unit of their own, the weights of the next two groups are prepared. Sums of
BLOCK_GROUPS groups wait in scratch, so that activations of a chunk stay in the second cache.

Source: Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
computations", arXiv:1904.06376
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.amx import (
    CONFIG_BYTES,
    TILE_BYTES,
    configure,
    load_sums,
    multiply,
    release,
    store_sums,
    zero_sums,
)
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.matmul_float import Unpacker
from pythia_gguf.kernels.memory import f32_at, i32_at, u8_at, u16_at
from pythia_gguf.kernels.simd import LANES, Vector, bits, from_bits, load, load16, store
from pythia_gguf.kernels.words import AHEAD_BYTES, I32X16, as_floats, as_words, prefetch_ahead

TOKENS = 16
CHUNK_COLUMNS = 512
BLOCK_GROUPS = 16
# Adding half of the last bit that is kept, then cutting, rounds to the nearest, ties away from zero.
HALF_BIT, KEPT = 0x8000, -0x10000
# Bytes of 32 columns: activations of 16 tokens, or weights of 16 rows.
RECORD_BYTES = 2 * TILE_BYTES
# Sizes of 32 unpacked columns, and of a split chunk of two groups.
ROOM_NUMBERS = 32 * 32
SPLIT_BYTES = CHUNK_COLUMNS // 32 * 2 * RECORD_BYTES


@intrinsic
def _upper(typing_context, value):
    """The upper 16 bits of every int32 lane."""
    result = Vector(types.uint16, value.lanes)

    def emit(context, builder, sig, args):
        shifted = builder.lshr(args[0], ir.Constant(args[0].type, [16] * value.lanes))
        return builder.trunc(shifted, result.llvm)

    return result(value), emit


@intrinsic
def _pairs(typing_context, low, high):
    """The upper halves of two int32 lanes in one lane, the half from `high` above."""

    def emit(context, builder, sig, args):
        shifted = builder.lshr(args[0], ir.Constant(I32X16.llvm, [16] * 16))
        return builder.or_(shifted, builder.and_(args[1], ir.Constant(I32X16.llvm, [KEPT] * 16)))

    return I32X16(low, high), emit


@c_kernel(7)
def split_activations(x, records, n_columns, first, n, t, n_tokens):
    """Split columns first .. first + n - 1 of row t into two bfloat16 numbers each, in the order of kernels/amx.py.

    x        f32 [n], the values
    records  [ceil(T / 16)][n_columns / 32][2][16][32] bfloat16, T a multiple of 32
    """
    row = f32_at(x, n)
    base = records + t // TOKENS * (n_columns // 32) * RECORD_BYTES + t % TOKENS * 64
    for i in range(0, n, LANES):
        at = base + (first + i) // 32 * RECORD_BYTES
        v = load(row, i)
        high = (bits(v) + HALF_BIT) & KEPT
        store(u16_at(at, LANES), 0, _upper(high))
        store(u16_at(at + TILE_BYTES, LANES), 0, _upper(bits(v - from_bits(high)) + HALF_BIT))


@inlined
def _split_weights(room, to):
    """Split 32 unpacked columns of a group, room[32 * k], into a tile of high parts and a tile of low parts."""
    high, low = i32_at(to, TILE_BYTES // 4), i32_at(to + 2 * TILE_BYTES, TILE_BYTES // 4)
    for k in range(0, 32, 2):
        a, b = load16(room, k * 32), load16(room, k * 32 + 32)
        high_a, high_b = (as_words(a) + HALF_BIT) & KEPT, (as_words(b) + HALF_BIT) & KEPT
        store(high, k * 8, _pairs(high_a, high_b))
        low_a, low_b = as_words(a - as_floats(high_a)), as_words(b - as_floats(high_b))
        store(low, k * 8, _pairs(low_a + HALF_BIT, low_b + HALF_BIT))


def bf16x3_scratch_bytes(n_tokens: int) -> int:
    """Scratch for so many tokens: the state of the tiles, unpacked and split weights, sums."""
    n_tiles = -(-n_tokens // (2 * TOKENS)) * 2 * BLOCK_GROUPS
    return CONFIG_BYTES + ROOM_NUMBERS * 4 + 2 * SPLIT_BYTES + n_tiles * TILE_BYTES


def bf16x3_product(format_name: str, unpacker: Unpacker) -> CKernel:
    """The product for a format."""
    unpack, bytes_of = unpacker

    @inlined
    def prepare(data, first, last, part, i, n_columns, room, to):
        """Unpack and split columns 32 * (i // 2) .. of a part: i even, of its first group; i odd, of its second."""
        n_pairs = (last - first + 1) // 2
        # If their number is odd, the last group stands in for the missing one.
        group, k = min(first + part % n_pairs * 2 + i % 2, last - 1), part // n_pairs * CHUNK_COLUMNS + i // 2 * 32
        n_bytes = bytes_of(n_columns) // (n_columns // 32)
        prefetch_ahead(data, group * bytes_of(n_columns) + k // 32 * n_bytes + AHEAD_BYTES, n_bytes)
        unpack(data, group, k, 32, n_columns, room, 0)
        _split_weights(room, to + i // 2 * 2 * RECORD_BYTES + i % 2 * TILE_BYTES)

    @inlined
    def block_sums(data, x, n_tokens, n_columns, first, last, room, split, sums):
        """Sums of all tokens for at most BLOCK_GROUPS groups. A part is a chunk of columns of two groups."""
        n_pairs = (last - first + 1) // 2
        row_bytes, sum_bytes = n_columns // 32 * RECORD_BYTES, BLOCK_GROUPS * TILE_BYTES
        n_parts = (n_columns + CHUNK_COLUMNS - 1) // CHUNK_COLUMNS * n_pairs
        for i in range(min(CHUNK_COLUMNS, n_columns) // 16):
            prepare(data, first, last, 0, i, n_columns, room, split)
        for part in range(n_parts):
            k = part // n_pairs * CHUNK_COLUMNS
            n, n_next = min(CHUNK_COLUMNS, n_columns - k), 0
            if part + 1 < n_parts:
                n_next = min(CHUNK_COLUMNS, n_columns - (part + 1) // n_pairs * CHUNK_COLUMNS) // 16
            here, there = split + part % 2 * SPLIT_BYTES, split + (part + 1) % 2 * SPLIT_BYTES
            n_steps = (n_tokens + 2 * TOKENS - 1) // (2 * TOKENS) * (n // 32)
            n_done, n_ready = 0, 0
            for t in range(0, n_tokens, 2 * TOKENS):
                at = x + t // TOKENS * row_bytes + k // 32 * RECORD_BYTES
                to = sums + t // TOKENS * sum_bytes + part % n_pairs * 2 * TILE_BYTES
                if k == 0:
                    zero_sums()
                else:
                    load_sums(to, to + sum_bytes)
                for i in range(n // 32):
                    multiply(at + i * RECORD_BYTES, at + row_bytes + i * RECORD_BYTES, here + i * 2 * RECORD_BYTES)
                    n_done += 1
                    while n_ready * n_steps < n_done * n_next:
                        prepare(data, first, last, part + 1, n_ready, n_columns, room, there)
                        n_ready += 1
                store_sums(to, to + sum_bytes)

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        data, result = u8_at(weights, last_group * bytes_of(n_columns)), f32_at(out, n_tokens * out_stride)
        room = f32_at(scratch + CONFIG_BYTES, ROOM_NUMBERS)
        split = scratch + CONFIG_BYTES + ROOM_NUMBERS * 4
        sums = split + 2 * SPLIT_BYTES
        found = f32_at(sums, (n_tokens + TOKENS - 1) // TOKENS * BLOCK_GROUPS * TILE_BYTES // 4)
        configure(scratch)
        for first in range(first_group, last_group, BLOCK_GROUPS):
            last = min(first + BLOCK_GROUPS, last_group)
            block_sums(data, x, n_tokens, n_columns, first, last, room, split, sums)
            for t in range(n_tokens):
                at = (t // TOKENS * BLOCK_GROUPS * TOKENS + t % TOKENS) * 16
                for group in range(first, last):
                    store(result, t * out_stride + group * 16, load16(found, at + (group - first) * TILE_BYTES // 4))
        release()

    product.__name__ = product.__qualname__ = f"product_bf16x3_{format_name.lower()}"
    return c_kernel(9)(product)
