"""Matrix products with int8 activations: exact dot products of 32 columns, then float arithmetic in one order.

Knows no model; the interface is that of kernels/matmul.py. Few tokens: codes go from memory straight into the dot
products. Many: a group of 16 rows is unpacked once into the thread's scratch, then tokens pass by in tiles of eight.
Both do, for 32 columns after 32 columns, the same operations on the same numbers:

    total = fused(float(sum of code * q) - offset * sum of q, scale * d, total)
    total = fused(minimum, -d * sum of q, total)

An unpacked block of 32 columns is a record of 12 vectors: 8 of codes, two scales, two minima.
"""

import numpy as np

from pythia_gguf.kernels.activations import MINUS_HIGH, MINUS_LOW, MINUS_SUM, SUM, SUM_HIGH, SUM_LOW, D
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, i32_at, u8_at
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import Layout
from pythia_gguf.kernels.words import as_floats, dot4, floats, fused, no_floats, no_words, number, prefetch

# From here on unpacking a group once is cheaper than unpacking it for every token.
MANY_TOKENS = 4
TILE = 8
# How far ahead of the dot products memory is asked for; without it a third of the time of Q4_K is waiting.
AHEAD_BYTES = 2048
ROOM_WORDS = 12 * 16


def _adder(layout: Layout):
    """The function for what 32 columns add to the total of one token, for 16 rows."""
    n_scales, has_min, has_offset = layout.n_scales, layout.has_min, layout.offset != 0
    minus = np.float32(-layout.offset)

    @inlined
    def add(total, codes, factors, x, at):
        """codes: 8 vectors; factors: scales and minima of both halves; x: records, of which one begins at word `at`."""
        a = dot4(no_words(), codes[0], x, at)
        a = dot4(a, codes[1], x, at + 1)
        a = dot4(a, codes[2], x, at + 2)
        a = dot4(a, codes[3], x, at + 3)
        d = number(x, at + D)
        if n_scales == 1:
            a = dot4(a, codes[4], x, at + 4)
            a = dot4(a, codes[5], x, at + 5)
            a = dot4(a, codes[6], x, at + 6)
            a = dot4(a, codes[7], x, at + 7)
            v = floats(a)
            if has_offset:
                v = fused(no_floats() + minus, number(x, at + SUM), v)
            total = fused(v, factors[0] * d, total)
            if has_min:
                total = fused(factors[2], number(x, at + MINUS_SUM), total)
            return total
        b = dot4(no_words(), codes[4], x, at + 4)
        b = dot4(b, codes[5], x, at + 5)
        b = dot4(b, codes[6], x, at + 6)
        b = dot4(b, codes[7], x, at + 7)
        v, w = floats(a), floats(b)
        if has_offset:
            v = fused(no_floats() + minus, number(x, at + SUM_LOW), v)
            w = fused(no_floats() + minus, number(x, at + SUM_HIGH), w)
        total = fused(v, factors[0] * d, total)
        total = fused(w, factors[1] * d, total)
        if has_min:
            total = fused(factors[2], number(x, at + MINUS_LOW), total)
            total = fused(factors[3], number(x, at + MINUS_HIGH), total)
        return total

    return add


def _unpacker(layout: Layout):
    """The function that writes a group into scratch."""
    columns, n_bytes, n_subs = layout.columns, layout.n_bytes, layout.columns // 32
    n_scales, has_min = layout.n_scales, layout.has_min
    codes_of, scales_of, minima_of = layout.codes, layout.scales, layout.minima

    @inlined
    def unpack(data, start, n_columns, room, factors):
        """room, factors: the same scratch as int32 and as float32."""
        for block in range(n_columns // columns):
            at = start + block * n_bytes
            for sub in range(n_subs):
                i = (block * n_subs + sub) * ROOM_WORDS
                codes = codes_of(data, at, sub)
                for j in range(8):
                    store(room, i + j * 16, codes[j])
                scales = scales_of(data, at, sub)
                store(factors, i + 128, scales[0])
                if n_scales == 2:
                    store(factors, i + 144, scales[1])
                if has_min:
                    minima = minima_of(data, at, sub)
                    store(factors, i + 160, minima[0])
                    if n_scales == 2:
                        store(factors, i + 176, minima[1])

    return unpack


@inlined
def _codes_in(room, i):
    """The codes of a record."""
    return (
        load16(room, i),
        load16(room, i + 16),
        load16(room, i + 32),
        load16(room, i + 48),
        load16(room, i + 64),
        load16(room, i + 80),
        load16(room, i + 96),
        load16(room, i + 112),
    )


@inlined
def _factors_in(room, i):
    """The scales and minima of a record; what the format has none of is not looked at."""
    return (
        as_floats(load16(room, i + 128)),
        as_floats(load16(room, i + 144)),
        as_floats(load16(room, i + 160)),
        as_floats(load16(room, i + 176)),
    )


def int8_product(format_name: str, layout: Layout) -> CKernel:
    """The product for a format of blocks."""
    columns, n_bytes, n_subs = layout.columns, layout.n_bytes, layout.columns // 32
    codes_of, scales_of, minima_of = layout.codes, layout.scales, layout.minima
    sub_bytes = n_bytes // n_subs
    add, unpack = _adder(layout), _unpacker(layout)

    @inlined
    def direct(data, start, x, first, n_columns):
        """One token against one group, from packed data."""
        total = no_floats()
        for block in range(n_columns // columns):
            at = start + block * n_bytes
            for sub in range(n_subs):
                for line in range(0, sub_bytes, 64):
                    prefetch(data, at + sub * sub_bytes + AHEAD_BYTES + line)
                factors = scales_of(data, at, sub) + minima_of(data, at, sub)
                total = add(total, codes_of(data, at, sub), factors, x, first + (block * n_subs + sub) * 16)
        return total

    @inlined
    def one(room, x, first, n_columns):
        """One token against an unpacked group."""
        total = no_floats()
        for i in range(n_columns // 32):
            at = i * ROOM_WORDS
            total = add(total, _codes_in(room, at), _factors_in(room, at), x, first + i * 16)
        return total

    @inlined
    def eight(room, x, first, n_columns, out, out_at, stride):
        """Eight tokens against an unpacked group."""
        a = no_floats()
        b, c, d, e, f, g, h = a, a, a, a, a, a, a
        token = n_columns // 2
        for i in range(n_columns // 32):
            codes = _codes_in(room, i * ROOM_WORDS)
            factors = _factors_in(room, i * ROOM_WORDS)
            at = first + i * 16
            a = add(a, codes, factors, x, at)
            b = add(b, codes, factors, x, at + token)
            c = add(c, codes, factors, x, at + 2 * token)
            d = add(d, codes, factors, x, at + 3 * token)
            e = add(e, codes, factors, x, at + 4 * token)
            f = add(f, codes, factors, x, at + 5 * token)
            g = add(g, codes, factors, x, at + 6 * token)
            h = add(h, codes, factors, x, at + 7 * token)
        store(out, out_at, a)
        store(out, out_at + stride, b)
        store(out, out_at + 2 * stride, c)
        store(out, out_at + 3 * stride, d)
        store(out, out_at + 4 * stride, e)
        store(out, out_at + 5 * stride, f)
        store(out, out_at + 6 * stride, g)
        store(out, out_at + 7 * stride, h)

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = n_columns // columns * n_bytes
        data = u8_at(weights, last_group * group_bytes)
        token = n_columns // 2
        records = i32_at(x, n_tokens * token)
        result = f32_at(out, n_tokens * out_stride)
        room = i32_at(scratch, n_columns // 32 * ROOM_WORDS)
        for group in range(first_group, last_group):
            start = group * group_bytes
            if n_tokens < MANY_TOKENS:
                for t in range(n_tokens):
                    store(result, t * out_stride + group * 16, direct(data, start, records, t * token, n_columns))
                continue
            unpack(data, start, n_columns, room, f32_at(scratch, n_columns // 32 * ROOM_WORDS))
            t = 0
            while t + TILE <= n_tokens:
                eight(room, records, t * token, n_columns, result, t * out_stride + group * 16, out_stride)
                t += TILE
            while t < n_tokens:
                store(result, t * out_stride + group * 16, one(room, records, t * token, n_columns))
                t += 1

    product.__name__ = product.__qualname__ = f"product_int8_{format_name.lower()}"
    return c_kernel(9)(product)
