"""Matrix products with float32 activations: weights as formats/ decodes them, and plain numbers.

The kernels have the interface of kernels/matmul.py. They sum 32 columns one after the other, then add the sum to the
total: a chain short enough that the next one runs beside it, and the same for one token as for many. For many tokens,
they unpack two groups of 16 rows, some columns at a time, and tokens pass by in tiles of six.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pythia_gguf.kernels.cpu_features import has_wide_registers
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, u8_at
from pythia_gguf.kernels.numba_private import cpu_context
from pythia_gguf.kernels.simd import item, load16, store
from pythia_gguf.kernels.unpack import Layout
from pythia_gguf.kernels.words import (
    as_floats,
    floats,
    fused,
    halves,
    no_floats,
    shorts,
    store_pair,
    words,
)

TILE = 6
FEW_TOKENS = 3
# Columns of two groups that are unpacked at once. For few tokens they stay in the first cache; for many the second
# cache is fast enough, and longer runs are better for activations and totals.
CHUNK_COLUMNS, LONG_CHUNK_COLUMNS = 128, 512
MANY_TOKENS = 18
ROOM_NUMBERS = LONG_CHUNK_COLUMNS * 32


@inlined
def _one(room, n, x, start, sums, at):
    """One token against n unpacked columns of two groups; totals are kept in `sums`."""
    c, d = load16(sums, at), load16(sums, at + 16)
    for i in range(0, n, 32):
        p = no_floats()
        q = p
        for k in range(i, min(i + 32, n)):
            w = item(x, start + k)
            p, q = fused(load16(room, k * 32), w, p), fused(load16(room, k * 32 + 16), w, q)
        c, d = c + p, d + q
    store(sums, at, c)
    store(sums, at + 16, d)


@inlined
def _six(room, n, x, start, token, sums, at):
    """Six tokens, `token` apart; a loaded weight serves all six, a loaded activation both groups."""
    c0, c1, c2 = load16(sums, at), load16(sums, at + 32), load16(sums, at + 64)
    c3, c4, c5 = load16(sums, at + 96), load16(sums, at + 128), load16(sums, at + 160)
    d0, d1, d2 = load16(sums, at + 16), load16(sums, at + 48), load16(sums, at + 80)
    d3, d4, d5 = load16(sums, at + 112), load16(sums, at + 144), load16(sums, at + 176)
    for i in range(0, n, 32):
        p0 = no_floats()
        p1, p2, p3, p4, p5 = p0, p0, p0, p0, p0
        q0, q1, q2, q3, q4, q5 = p0, p0, p0, p0, p0, p0
        for k in range(i, min(i + 32, n)):
            a, b = load16(room, k * 32), load16(room, k * 32 + 16)
            w = item(x, start + k)
            p0, q0 = fused(a, w, p0), fused(b, w, q0)
            w = item(x, start + token + k)
            p1, q1 = fused(a, w, p1), fused(b, w, q1)
            w = item(x, start + 2 * token + k)
            p2, q2 = fused(a, w, p2), fused(b, w, q2)
            w = item(x, start + 3 * token + k)
            p3, q3 = fused(a, w, p3), fused(b, w, q3)
            w = item(x, start + 4 * token + k)
            p4, q4 = fused(a, w, p4), fused(b, w, q4)
            w = item(x, start + 5 * token + k)
            p5, q5 = fused(a, w, p5), fused(b, w, q5)
        c0, c1, c2, c3, c4, c5 = c0 + p0, c1 + p1, c2 + p2, c3 + p3, c4 + p4, c5 + p5
        d0, d1, d2, d3, d4, d5 = d0 + q0, d1 + q1, d2 + q2, d3 + q3, d4 + q4, d5 + q5
    store_pair(sums, at, c0, d0)
    store_pair(sums, at + 32, c1, d1)
    store_pair(sums, at + 64, c2, d2)
    store_pair(sums, at + 96, c3, d3)
    store_pair(sums, at + 128, c4, d4)
    store_pair(sums, at + 160, c5, d5)


@inlined
def _six_by_group(room, n, x, start, token, sums, at):
    """The same, one group after the other, which is what smaller registers hold."""
    for g in range(0, 32, 16):
        a = at + g
        c0, c1, c2 = load16(sums, a), load16(sums, a + 32), load16(sums, a + 64)
        c3, c4, c5 = load16(sums, a + 96), load16(sums, a + 128), load16(sums, a + 160)
        for i in range(0, n, 32):
            p0 = no_floats()
            p1, p2, p3, p4, p5 = p0, p0, p0, p0, p0
            for k in range(i, min(i + 32, n)):
                w, at_k = load16(room, k * 32 + g), start + k
                p0 = fused(w, item(x, at_k), p0)
                p1 = fused(w, item(x, at_k + token), p1)
                p2 = fused(w, item(x, at_k + 2 * token), p2)
                p3 = fused(w, item(x, at_k + 3 * token), p3)
                p4 = fused(w, item(x, at_k + 4 * token), p4)
                p5 = fused(w, item(x, at_k + 5 * token), p5)
            c0, c1, c2, c3, c4, c5 = c0 + p0, c1 + p1, c2 + p2, c3 + p3, c4 + p4, c5 + p5
        store(sums, a, c0)
        store(sums, a + 32, c1)
        store(sums, a + 64, c2)
        store(sums, a + 96, c3)
        store(sums, a + 128, c4)
        store(sums, a + 160, c5)


_six_tokens = _six if has_wide_registers(cpu_context()) else _six_by_group


def float_scratch_bytes(n_tokens: int) -> int:
    """Scratch for so many tokens: two unpacked groups and the totals."""
    return (ROOM_NUMBERS + n_tokens * 32) * 4


def _unpacked_product(unpack):
    """The function for all tokens against groups that `unpack` writes into scratch, some columns at a time."""

    @inlined
    def product(data, x, n_tokens, n_columns, out, out_stride, first_group, last_group, scratch):
        room, sums = f32_at(scratch, ROOM_NUMBERS), f32_at(scratch + ROOM_NUMBERS * 4, n_tokens * 32)
        chunk = LONG_CHUNK_COLUMNS if n_tokens >= MANY_TOKENS else CHUNK_COLUMNS
        for group in range(first_group, last_group, 2):
            n_pair = min(2, last_group - group)
            for i in range(0, n_tokens * 32, 16):
                store(sums, i, no_floats())
            for k in range(0, n_columns, chunk):
                n = min(chunk, n_columns - k)
                for g in range(n_pair):
                    unpack(data, group + g, k, n, n_columns, room, g * 16)
                t = 0
                while t + TILE <= n_tokens:
                    _six_tokens(room, n, x, t * n_columns + k, n_columns, sums, t * 32)
                    t += TILE
                while t < n_tokens:
                    _one(room, n, x, t * n_columns + k, sums, t * 32)
                    t += 1
            for t in range(n_tokens):
                for g in range(n_pair):
                    store(out, t * out_stride + (group + g) * 16, load16(sums, t * 32 + g * 16))

    return product


class Unpacker(NamedTuple):
    """How to read float32 weights from packed ones.

    unpack    (data, group, first_column, n_columns, n_columns_of_all, room, to): writes column k to room[to + 32 * k]
    bytes_of  (n_columns): bytes of a group of 16 rows
    """

    unpack: Any
    bytes_of: Any


def block_unpacker(layout: Layout) -> Unpacker:
    """The unpacker for a format of blocks; it takes multiples of 32 columns."""
    columns, n_bytes, offset, has_min = layout.columns, layout.n_bytes, layout.offset, layout.has_min
    codes, scales, minima = layout.codes, layout.scales, layout.minima
    n_subs = columns // 32

    @inlined
    def put(room, at, code, scale, minimum):
        """Four columns of 16 rows."""
        for b in range(4):
            w = floats(((code >> (8 * b)) & 255) - offset) * scale
            if has_min:
                w = w - minimum
            store(room, at + b * 32, w)

    @inlined
    def unpack(data, group, first, n, n_columns, room, to):
        start = group * (n_columns // columns * n_bytes)
        for i in range(first // 32, (first + n) // 32):
            at, sub = start + i // n_subs * n_bytes, i % n_subs
            k = to + (i * 32 - first) * 32
            c0, c1, c2, c3, c4, c5, c6, c7 = codes(data, at, sub)
            s0, s1 = scales(data, at, sub)
            m0, m1 = minima(data, at, sub)
            put(room, k, c0, s0, m0)
            put(room, k + 128, c1, s0, m0)
            put(room, k + 256, c2, s0, m0)
            put(room, k + 384, c3, s0, m0)
            put(room, k + 512, c4, s1, m1)
            put(room, k + 640, c5, s1, m1)
            put(room, k + 768, c6, s1, m1)
            put(room, k + 896, c7, s1, m1)

    @inlined
    def bytes_of(n_columns):
        return n_columns // columns * n_bytes

    return Unpacker(unpack, bytes_of)


def block_product(format_name: str, layout: Layout) -> CKernel:
    """The product for a format of blocks."""
    unpack, bytes_of = block_unpacker(layout)
    all_tokens = _unpacked_product(unpack)

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        data = u8_at(weights, last_group * bytes_of(n_columns))
        given, result = f32_at(x, n_tokens * n_columns), f32_at(out, n_tokens * out_stride)
        all_tokens(data, given, n_tokens, n_columns, result, out_stride, first_group, last_group, scratch)

    product.__name__ = product.__qualname__ = f"product_float_{format_name.lower()}"
    return c_kernel(9)(product)


@inlined
def _f16(data, at):
    return halves(data, at)


@inlined
def _bf16(data, at):
    return as_floats(shorts(data, at) << 16)


@inlined
def _f32(data, at):
    return as_floats(words(data, at))


# For each format: the reader of 16 rows of one column, and the bytes of one weight.
_READERS = {"F16": (_f16, 2), "BF16": (_bf16, 2), "F32": (_f32, 4)}


def plain_unpacker(format_name: str) -> Unpacker:
    """The unpacker for F16, BF16 or F32; raises ValueError for another format."""
    if format_name not in _READERS:
        raise ValueError(f"no product for format {format_name}")
    read, n_bytes = _READERS[format_name]
    step = 16 * n_bytes

    @inlined
    def bytes_of(n_columns):
        return (n_columns + 31) // 32 * 32 * step

    @inlined
    def unpack(data, group, first, n, n_columns, room, to):
        start = group * bytes_of(n_columns)
        for k in range(n):
            store(room, to + k * 32, read(data, start + (first + k) * step))

    return Unpacker(unpack, bytes_of)


def plain_product(format_name: str) -> CKernel:
    """The product for F16, BF16 or F32; raises ValueError for another format."""
    unpack, bytes_of = plain_unpacker(format_name)
    read, n_bytes = _READERS[format_name]
    step = 16 * n_bytes

    @inlined
    def direct(data, start, x, first, n_columns):
        """One token against a group, from packed data."""
        total = no_floats()
        for i in range(0, n_columns, 32):
            s = no_floats()
            for k in range(i, min(i + 32, n_columns)):
                s = fused(read(data, start + k * step), item(x, first + k), s)
            total = total + s
        return total

    all_tokens = _unpacked_product(unpack)

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = bytes_of(n_columns)
        data = u8_at(weights, last_group * group_bytes)
        given, result = f32_at(x, n_tokens * n_columns), f32_at(out, n_tokens * out_stride)
        if n_tokens > FEW_TOKENS:
            all_tokens(data, given, n_tokens, n_columns, result, out_stride, first_group, last_group, scratch)
            return
        for group in range(first_group, last_group):
            for t in range(n_tokens):
                total = direct(data, group * group_bytes, given, t * n_columns, n_columns)
                store(result, t * out_stride + group * 16, total)

    product.__name__ = product.__qualname__ = f"product_float_{format_name.lower()}"
    return c_kernel(9)(product)
