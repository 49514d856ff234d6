"""Matrix products with int8 activations: exact dot products of 32 columns, then float arithmetic in one order.

The kernels have the interface of kernels/matmul.py. For 32 columns after 32 columns, however many tokens there are:

    v = float(sum of (code - offset) * q)      exact: fewer than 2**24
    t = v * scale; t = fused(minimum, -sum of q, t); total = fused(t, d, total)

with t = fused(v of the upper half, its scale, v of the lower half * scale) where 16 columns have a scale.

For few tokens, codes of weights go from memory straight into the dot products, unsigned times signed, and the offset is
subtracted after them. For many tokens, two groups of 16 rows are unpacked into the thread's scratch, signed, 512
columns at a time so that they stay in the first cache, and tokens, unsigned, pass by in tiles of four; a loaded
activation serves 32 rows. Codes of these tokens are 128 too large; `base` = -128 * sum of weights corrects that before
the first product. An unpacked block of 32 columns is a record of vectors: 8 of codes, then a base, a scale and a
minimum for each scale that 32 columns have.

Where the processor multiplies only signed bytes exactly (kernels/dots.py), the offset of codes is subtracted before the
products of few tokens. Those of many tokens lose the 128 of activations then, and the base is zero, or they are in
kernels/matmul_int16.py. The sums are the same.
"""

import numpy as np

from pythia_gguf.kernels.activations import (
    MANY_TOKENS,
    MINUS_HIGH,
    MINUS_LOW,
    MINUS_SUM,
    RECORD_WORDS,
    WIDE_WORDS,
    D,
)
from pythia_gguf.kernels.dots import Dots, dot4, dots_of
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.matmul_int16 import CHUNK, OTHER, tiles16, unpacker16
from pythia_gguf.kernels.memory import f32_at, i32_at, u8_at
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import Layout
from pythia_gguf.kernels.words import (
    as_floats,
    floats,
    fused,
    lowered,
    no_floats,
    no_words,
    number,
    prefetch,
    prefetch_ahead,
    spread,
)

TILE = 4
CHUNK_COLUMNS = 512
ONES = 0x01010101
RECORD_VECTORS = 14
# Sizes of two unpacked groups.
ROOM_WORDS = 2 * CHUNK_COLUMNS // 32 * RECORD_VECTORS * 16


def _joiner(layout: Layout):
    """Make the function that adds 32 columns to the total of one token, for 16 rows."""
    n_scales, has_min = layout.n_scales, layout.has_min

    @inlined
    def join(total, v, w, s, s2, m, m2, x, at):
        """v, w: dot products of both halves (one: v alone); s, m: scales and minima; a record of x begins at `at`."""
        t = v * s
        if n_scales == 2:
            t = fused(w, s2, t)
        if has_min:
            if n_scales == 2:
                t = fused(m, number(x, at + MINUS_LOW), t)
                t = fused(m2, number(x, at + MINUS_HIGH), t)
            else:
                t = fused(m, number(x, at + MINUS_SUM), t)
        return fused(t, number(x, at + D), total)

    return join


def _lowered_codes(layout: Layout):
    """Make the function that reads codes of a format minus its offset."""
    codes_of, offset = layout.codes, layout.offset

    @inlined
    def codes(data, at, sub):
        c0, c1, c2, c3, c4, c5, c6, c7 = codes_of(data, at, sub)
        return (
            lowered(c0, offset),
            lowered(c1, offset),
            lowered(c2, offset),
            lowered(c3, offset),
            lowered(c4, offset),
            lowered(c5, offset),
            lowered(c6, offset),
            lowered(c7, offset),
        )

    return codes


def _direct(layout: Layout, dots: Dots):
    """Make the functions for one and for four tokens against one group, from packed data."""
    columns, n_bytes, n_subs = layout.columns, layout.n_bytes, layout.columns // 32
    scales_of, minima_of, n_scales, dot16 = layout.scales, layout.minima, layout.n_scales, dots.few
    codes_of = _lowered_codes(layout) if dots.few_signed else layout.codes
    # An offset that has been taken off already is zero here, times a sum that is NaN where an activation is.
    has_offset, offset = layout.offset != 0, np.float32(0 if dots.few_signed else layout.offset)
    sub_bytes, join = n_bytes // n_subs, _joiner(layout)

    @inlined
    def add(total, codes, s, m, x, at):
        """32 columns of one token."""
        a = dot16(no_words(), codes[0], codes[1], codes[2], codes[3], x, at)
        b = dot16(no_words() if n_scales == 2 else a, codes[4], codes[5], codes[6], codes[7], x, at + 4)
        v, w = floats(a if n_scales == 2 else b), floats(b)
        if has_offset:
            v = fused(no_floats() + offset, number(x, at + (MINUS_LOW if n_scales == 2 else MINUS_SUM)), v)
            w = fused(no_floats() + offset, number(x, at + MINUS_HIGH), w)
        return join(total, v, w, s[0], s[1], m[0], m[1], x, at)

    @inlined
    def direct(data, start, x, first, n_columns):
        total = no_floats()
        for block in range(n_columns // columns):
            place, at = start + block * n_bytes, first + block * n_subs * 16
            for sub in range(n_subs):
                prefetch_ahead(data, place + sub * sub_bytes, sub_bytes)
                s, m = scales_of(data, place, sub), minima_of(data, place, sub)
                total = add(total, codes_of(data, place, sub), s, m, x, at + sub * 16)
        return total

    @inlined
    def direct_four(data, start, x, first, token, n_columns):
        a = no_floats()
        b, c, d = a, a, a
        for block in range(n_columns // columns):
            place = start + block * n_bytes
            for sub in range(n_subs):
                at = first + (block * n_subs + sub) * 16
                prefetch_ahead(data, place + sub * sub_bytes, sub_bytes)
                s, m = scales_of(data, place, sub), minima_of(data, place, sub)
                codes = codes_of(data, place, sub)
                a = add(a, codes, s, m, x, at)
                b = add(b, codes, s, m, x, at + token)
                c = add(c, codes, s, m, x, at + 2 * token)
                d = add(d, codes, s, m, x, at + 3 * token)
        return a, b, c, d

    return direct, direct_four


def _unpacker(layout: Layout, many_signed: bool):
    """Make the function that writes blocks of a group into scratch."""
    columns, n_bytes, n_subs = layout.columns, layout.n_bytes, layout.columns // 32
    n_scales, has_min, offset = layout.n_scales, layout.has_min, layout.offset
    codes_of, scales_of, minima_of = layout.codes, layout.scales, layout.minima

    @inlined
    def unpack(data, start, n_columns, room, factors, to):
        """room, factors: the same scratch as int32 and as float32, from word `to`."""
        for block in range(n_columns // columns):
            place = start + block * n_bytes
            for sub in range(n_subs):
                i = to + (block * n_subs + sub) * RECORD_VECTORS * 16
                codes = codes_of(data, place, sub)
                sums = no_words()
                for j in range(8):
                    if n_scales == 2 and j == 4:
                        store(room, i + 128, no_words() if many_signed else no_words() - (sums << 7))
                        sums = no_words()
                    signed = lowered(codes[j], offset)
                    store(room, i + j * 16, signed)
                    sums = dot4(sums, no_words() + ONES, signed)
                scales, minima = scales_of(data, place, sub), minima_of(data, place, sub)
                base = no_words() if many_signed else no_words() - (sums << 7)
                store(room, i + (144 if n_scales == 2 else 128), base)
                store(factors, i + 160, scales[0])
                if n_scales == 2:
                    store(factors, i + 176, scales[1])
                if has_min:
                    store(factors, i + 192, minima[0])
                    if n_scales == 2:
                        store(factors, i + 208, minima[1])

    return unpack


@inlined
def _half_at_once(p, q, room, i, j, x, at, token):
    """Add four dot products of four tokens for both groups: columns of vectors j .. j + 3 of the records at i."""
    p0, p1, p2, p3 = p
    q0, q1, q2, q3 = q
    for k in range(j, j + 4):
        a, b = load16(room, i + k * 16), load16(room, i + ROOM_WORDS // 2 + k * 16)
        u = spread(x, at + k)
        p0, q0 = dot4(p0, u, a), dot4(q0, u, b)
        u = spread(x, at + token + k)
        p1, q1 = dot4(p1, u, a), dot4(q1, u, b)
        u = spread(x, at + 2 * token + k)
        p2, q2 = dot4(p2, u, a), dot4(q2, u, b)
        u = spread(x, at + 3 * token + k)
        p3, q3 = dot4(p3, u, a), dot4(q3, u, b)
    return (p0, p1, p2, p3), (q0, q1, q2, q3)


def _half_by_token(dot):
    """Make the same function for one token and one group after the other: few sums are in registers at a time."""

    @inlined
    def group(p, room, i, x, at, token):
        w0, w1, w2, w3 = load16(room, i), load16(room, i + 16), load16(room, i + 32), load16(room, i + 48)
        return (
            dot(p[0], w0, w1, w2, w3, x, at),
            dot(p[1], w0, w1, w2, w3, x, at + token),
            dot(p[2], w0, w1, w2, w3, x, at + 2 * token),
            dot(p[3], w0, w1, w2, w3, x, at + 3 * token),
        )

    @inlined
    def half(p, q, room, i, j, x, at, token):
        i += j * 16
        p = group(p, room, i, x, at + j, token)
        return p, group(q, room, i + ROOM_WORDS // 2, x, at + j, token)

    return half


@inlined
def _floats(p):
    """Four vectors of integers as float32."""
    return floats(p[0]), floats(p[1]), floats(p[2]), floats(p[3])


@inlined
def _bases(room, i):
    """The values at which the dot products of a group begin."""
    base = load16(room, i)
    return base, base, base, base


def _tiles(layout: Layout, dots: Dots):
    """Make the functions for one and for four tokens against two unpacked groups."""
    n_scales, join = layout.n_scales, _joiner(layout)
    step, other = RECORD_VECTORS * 16, ROOM_WORDS // 2
    dot16, half = dots.many, _half_by_token(dots.many) if dots.token_by_token else _half_at_once

    @inlined
    def joined(total, v, w, room, i, x, at):
        """The total of one token for one group."""
        s, s2 = as_floats(load16(room, i + 160)), as_floats(load16(room, i + 176))
        m, m2 = as_floats(load16(room, i + 192)), as_floats(load16(room, i + 208))
        return join(total, v, w, s, s2, m, m2, x, at)

    @inlined
    def joined_all(c, v, w, room, i, x, at, token):
        """The totals of four tokens for one group."""
        return (
            joined(c[0], v[0], w[0], room, i, x, at),
            joined(c[1], v[1], w[1], room, i, x, at + token),
            joined(c[2], v[2], w[2], room, i, x, at + 2 * token),
            joined(c[3], v[3], w[3], room, i, x, at + 3 * token),
        )

    @inlined
    def four(room, n_blocks, x, first, token, sums, at):
        c = (load16(sums, at), load16(sums, at + 32), load16(sums, at + 64), load16(sums, at + 96))
        d = (load16(sums, at + 16), load16(sums, at + 48), load16(sums, at + 80), load16(sums, at + 112))
        for k in range(n_blocks):
            i, place = k * step, first + k * 16
            p, q = half(_bases(room, i + 128), _bases(room, i + other + 128), room, i, 0, x, place, token)
            if n_scales == 2:
                v, w = _floats(p), _floats(q)
                p, q = _bases(room, i + 144), _bases(room, i + other + 144)
            p, q = half(p, q, room, i, 4, x, place, token)
            if n_scales == 1:
                v, w = _floats(p), _floats(q)
            c = joined_all(c, v, _floats(p), room, i, x, place, token)
            d = joined_all(d, w, _floats(q), room, i + other, x, place, token)
        for t in range(4):
            store(sums, at + t * 32, c[t])
            store(sums, at + t * 32 + 16, d[t])

    @inlined
    def row(p, room, i, x, at):
        return dot16(p, load16(room, i), load16(room, i + 16), load16(room, i + 32), load16(room, i + 48), x, at)

    @inlined
    def single(c, room, i, x, at):
        """32 columns of one token against one group."""
        p = row(load16(room, i + 128), room, i, x, at)
        v = floats(p)
        if n_scales == 2:
            p = load16(room, i + 144)
        p = row(p, room, i + 64, x, at + 4)
        if n_scales == 1:
            v = floats(p)
        return joined(c, v, floats(p), room, i, x, at)

    @inlined
    def one(room, n_blocks, x, first, sums, at):
        c, d = load16(sums, at), load16(sums, at + 16)
        for k in range(n_blocks):
            c = single(c, room, k * step, x, first + k * 16)
            d = single(d, room, k * step + other, x, first + k * 16)
        store(sums, at, c)
        store(sums, at + 16, d)

    return one, four


def int8_scratch_bytes(n_tokens: int) -> int:
    """Scratch for so many tokens: two unpacked groups and the totals."""
    return ROOM_WORDS * 4 + n_tokens * 32 * 4


def takes_int16(layout: Layout) -> bool:
    """Whether products of many tokens take int16 on the processor that is compiled for."""
    return dots_of(layout.most, layout.offset).many is None


def int8_product(format_name: str, layout: Layout) -> CKernel:
    """The product for a format of blocks."""
    columns, n_bytes = layout.columns, layout.n_bytes
    dots = dots_of(layout.most, layout.offset)
    direct, direct_four = _direct(layout, dots)
    if dots.many is None:
        unpack, (one, four) = unpacker16(layout), tiles16(_joiner(layout))
        chunk, second, record = CHUNK, OTHER, WIDE_WORDS
    else:
        unpack, (one, four) = _unpacker(layout, dots.many_signed), _tiles(layout, dots)
        chunk, second, record = CHUNK_COLUMNS, ROOM_WORDS // 2, RECORD_WORDS

    @inlined
    def few(data, start, x, n_tokens, n_columns, result, stride, at):
        """All tokens against one group; its data stays in the first cache between them."""
        token, t = n_columns // 2, 0
        while t + TILE <= n_tokens:
            a, b, c, d = direct_four(data, start, x, t * token, token, n_columns)
            store(result, t * stride + at, a)
            store(result, (t + 1) * stride + at, b)
            store(result, (t + 2) * stride + at, c)
            store(result, (t + 3) * stride + at, d)
            t += TILE
        while t < n_tokens:
            store(result, t * stride + at, direct(data, start, x, t * token, n_columns))
            t += 1

    @inlined
    def many(data, start, group_bytes, n_pair, x, n_tokens, n_columns, room, factors, sums):
        """All tokens against one or two groups, the totals into `sums`, f32 [n_tokens, 32]."""
        token = n_columns // 32 * record
        for i in range(0, n_tokens * 32, 16):
            store(sums, i, no_floats())
        for k in range(0, n_columns, chunk):
            n = min(chunk, n_columns - k)
            for g in range(n_pair):
                place = start + g * group_bytes + k // columns * n_bytes
                unpack(data, place, n, room, factors, g * second)
            # Ask for the data to unpack next, of these groups or of the next ones: it comes while tokens pass by.
            ahead = start + (k + n) // columns * n_bytes if k + n < n_columns else start + 2 * group_bytes
            for line in range(0, n // columns * n_bytes, 64):
                prefetch(data, ahead + line)
                prefetch(data, ahead + group_bytes + line)
            t = 0
            while t + TILE <= n_tokens:
                four(room, n // 32, x, t * token + k // 32 * record, token, sums, t * 32)
                t += TILE
            while t < n_tokens:
                one(room, n // 32, x, t * token + k // 32 * record, sums, t * 32)
                t += 1

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = n_columns // columns * n_bytes
        data = u8_at(weights, last_group * group_bytes)
        records = i32_at(x, n_tokens * n_columns // 32 * (record if n_tokens >= MANY_TOKENS else RECORD_WORDS))
        result = f32_at(out, n_tokens * out_stride)
        if n_tokens < MANY_TOKENS:
            for group in range(first_group, last_group):
                few(data, group * group_bytes, records, n_tokens, n_columns, result, out_stride, group * 16)
            return
        room, factors = i32_at(scratch, ROOM_WORDS), f32_at(scratch, ROOM_WORDS)
        sums = f32_at(scratch + ROOM_WORDS * 4, n_tokens * 32)
        for group in range(first_group, last_group, 2):
            n_pair = min(2, last_group - group)
            many(data, group * group_bytes, group_bytes, n_pair, records, n_tokens, n_columns, room, factors, sums)
            for t in range(n_tokens):
                for g in range(n_pair):
                    store(result, t * out_stride + (group + g) * 16, load16(sums, t * 32 + g * 16))

    product.__name__ = product.__qualname__ = f"product_int8_{format_name.lower()}"
    return c_kernel(9)(product)
