"""Products of many tokens where the processor multiplies large bytes only by sign: weights and activations as int16.

By sign, four products of bytes in every lane take four instructions (kernels/dots.py); of int16 they take two, and what
is unpacked serves four tokens. The sums are the same, and kernels/matmul_int8.py makes the same floats of them.

    record of activations   32 codes as int16, then the numbers of kernels/activations.py, from word FACTORS
    unpacked block          16 vectors of codes, code - offset, then a scale

A word holds two columns: words 2 j and 2 j + 1 hold the even and the odd ones of columns 4 j .. 4 j + 3. The formats of
large bytes have one scale for 32 columns, and no minima.
"""

from pythia_gguf.kernels.activations import WIDE_FACTORS, WIDE_WORDS
from pythia_gguf.kernels.dots import dot2, even_bytes, odd_bytes
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import Layout
from pythia_gguf.kernels.words import as_floats, floats, lowered, no_floats, no_words, spread

STEP = 17 * 16
# Columns that are unpacked at once, so that both groups stay in the first cache, and where the second group begins.
CHUNK = 256
OTHER = CHUNK // 32 * STEP


def unpacker16(layout: Layout):
    """Make the function that writes blocks of a group into scratch."""
    columns, n_bytes, n_subs, offset = layout.columns, layout.n_bytes, layout.columns // 32, layout.offset
    codes_of, scales_of = layout.codes, layout.scales
    assert layout.n_scales == 1
    assert not layout.has_min

    @inlined
    def unpack(data, start, n_columns, room, factors, to):
        """room, factors: the same scratch as int32 and as float32, from word `to`."""
        for block in range(n_columns // columns):
            place = start + block * n_bytes
            for sub in range(n_subs):
                i = to + (block * n_subs + sub) * STEP
                codes = codes_of(data, place, sub)
                for j in range(8):
                    code = lowered(codes[j], offset)
                    store(room, i + j * 32, even_bytes(code))
                    store(room, i + j * 32 + 16, odd_bytes(code))
                store(factors, i + 256, scales_of(data, place, sub)[0])

    return unpack


def tiles16(join):
    """Make the functions for one and for four tokens against two unpacked groups.

    join  adds 32 columns to a total: join(total, v, w, s, s2, m, m2, x, at), see kernels/matmul_int8.py
    """

    @inlined
    def joined(total, p, room, i, x, at):
        v, s, nothing = floats(p), as_floats(load16(room, i + 256)), no_floats()
        return join(total, v, v, s, s, nothing, nothing, x, at + WIDE_FACTORS)

    @inlined
    def four(room, n_blocks, x, first, token, sums, at):
        for g in range(2):
            a = at + g * 16
            c0, c1, c2, c3 = load16(sums, a), load16(sums, a + 32), load16(sums, a + 64), load16(sums, a + 96)
            for k in range(n_blocks):
                i, place = g * OTHER + k * STEP, first + k * WIDE_WORDS
                p0 = no_words()
                p1, p2, p3 = p0, p0, p0
                for j in range(16):
                    w = load16(room, i + j * 16)
                    p0 = dot2(p0, w, spread(x, place + j))
                    p1 = dot2(p1, w, spread(x, place + token + j))
                    p2 = dot2(p2, w, spread(x, place + 2 * token + j))
                    p3 = dot2(p3, w, spread(x, place + 3 * token + j))
                c0 = joined(c0, p0, room, i, x, place)
                c1 = joined(c1, p1, room, i, x, place + token)
                c2 = joined(c2, p2, room, i, x, place + 2 * token)
                c3 = joined(c3, p3, room, i, x, place + 3 * token)
            store(sums, a, c0)
            store(sums, a + 32, c1)
            store(sums, a + 64, c2)
            store(sums, a + 96, c3)

    @inlined
    def one(room, n_blocks, x, first, sums, at):
        for g in range(2):
            c = load16(sums, at + g * 16)
            for k in range(n_blocks):
                i, place = g * OTHER + k * STEP, first + k * WIDE_WORDS
                p = no_words()
                for j in range(16):
                    p = dot2(p, load16(room, i + j * 16), spread(x, place + j))
                c = joined(c, p, room, i, x, place)
            store(sums, at + g * 16, c)

    return one, four
