"""Encoders of IQ4_NL and IQ4_XS, which share 16 uneven levels and the search for a scale.

Layouts in formats/iq4_nl.py and formats/iq4_xs.py; algorithm of llama.cpp 0c1e57098, ggml/src/ggml-quants.c
`quantize_row_iq4_nl_impl` with ntry = 7.

llama.cpp finds the nearest level by binary search. Its decision flips exactly at the 15 midpoints of neighbouring
levels, so the index is the number of midpoints not above the value: compares and masked additions, no branch. Where the
processor looks up tables in registers, a rough guess leaves one midpoint in question, and one comparison decides.
"""

import numpy as np

from pythia_gguf.formats.iq4_nl import LEVELS
from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    EPSILON,
    ONE,
    WIDTH,
    ZERO,
    block_signed_abs_max,
    clamp,
    load,
    nearest,
    pack_halves,
    reciprocal,
    signed_abs_max,
    splat,
    to_half,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.signed_scale import turn_importance
from pythia_gguf.kernels.simd import absolute, bits, from_bits, narrow, select, store, to_float, to_int
from pythia_gguf.kernels.tables import byte_table, can_look_up, can_look_up_bytes, look_up
from pythia_gguf.kernels.words import fused

N = 32
CHUNK_WEIGHTS = WIDTH * N
WEIGHTED_CHUNK = CHUNK_WEIGHTS
LEVEL = tuple(np.float32(v) for v in LEVELS)
MIDPOINT = tuple((a + b) / np.float32(2) for a, b in zip(LEVEL[:-1], LEVEL[1:], strict=True))
STEP = tuple(b - a for a, b in zip(LEVEL[:-1], LEVEL[1:], strict=True))
FIRST = LEVEL[0]
TRIES = 7


# The search scales a group so that its largest weight becomes about -127, so values stay within 134. Buckets of width 9
# over -144..144 hold one midpoint each at most, and no midpoint lies where rounding could put it into two.
BUCKET = np.float32(1 / 9)
FIRST_BUCKET = np.float32(16)
EDGES = [9 * (b - 16) for b in range(33)]
INSIDE = [[m for m in MIDPOINT if low <= m < high] for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)]
BELOW = [len([m for m in MIDPOINT if m < low]) for low in EDGES[:-1]]
BUCKET_MIDPOINT = tuple(inside[0] if inside else np.float32(0) for inside in INSIDE)
BUCKET_LOW = tuple(LEVEL[below] for below in BELOW)
BUCKET_HIGH = tuple(LEVEL[below + len(inside)] for below, inside in zip(BELOW, INSIDE, strict=True))


# Where bytes are looked up: c0 + c1 * v - c2 * v * |v| rises so that at the midpoint of levels k and k + 1 it is nearer
# to k than to any other integer, if only just. Rounded, it leaves that one midpoint in question, for |v| up to WITHIN.
CURVE = (7, 0.0941013474, 0.000289299207)
WITHIN = np.float32(136)
# A float32 between 128 and 256 counts units of 2**-16, so with these constants the sum has bytes [16 + k, 0, 0, 0x43].
# A table makes entries [k, 0, 0, 3] of them. Entry 3 is 0x4B, so that is a float32 above 2**23 with entry k in its last
# bits; what the other bytes add is subtracted.
GUESS_UNIT = 2.0**-16
GUESS_BASE = np.float32(128 + (16 + CURVE[0]) * GUESS_UNIT)
GUESS_SLOPE, GUESS_BEND = np.float32(CURVE[1] * GUESS_UNIT), np.float32(-CURVE[2] * GUESS_UNIT)


def float_table(levels):
    """A table of bytes for 15 levels, and what is to be subtracted from the float32 that it gives."""
    raised = [int(level - levels[3]) + 0x4B for level in levels]
    return byte_table((*raised, 0)), np.float32(2**23 + raised[0] * 0x010100 + 0x4B - levels[3])


LOW_TABLE, LOW_RAISED = float_table(LEVEL[:-1])
HIGH_TABLE, HIGH_RAISED = float_table(LEVEL[1:])


@inlined
def guessed(v):
    """The index k of a level in the lowest 4 bits, the levels k and k + 1, and whether the second one is nearer.

    v  |v| <= WITHIN, or anything where the result does not matter
    Both differences are exact where they are close to each other, so this is the comparison with the midpoint.
    """
    guess = bits(fused(fused(absolute(v), GUESS_BEND, GUESS_SLOPE), v, GUESS_BASE))
    low = from_bits(LOW_TABLE(guess)) - LOW_RAISED
    high = from_bits(HIGH_TABLE(guess)) - HIGH_RAISED
    return guess, low, high, v - low >= high - v


@inlined
def nearest_level(v):
    """The level nearest to each lane, |v| < 140."""
    if can_look_up():
        bucket = to_int(v * BUCKET + FIRST_BUCKET)
        high = v >= look_up(BUCKET_MIDPOINT, bucket)
        return select(high, look_up(BUCKET_HIGH, bucket), look_up(BUCKET_LOW, bucket))
    if can_look_up_bytes():
        _, low, high, is_high = guessed(v)
        return select(is_high, high, low)
    level = splat(FIRST)
    for i in range(15):
        level = level + select(v >= MIDPOINT[i], STEP[i], ZERO)
    return level


@inlined
def nearest_index(v):
    """The index of the level nearest to each lane."""
    if can_look_up_bytes():
        guess, _, _, is_high = guessed(clamp(v, -WITHIN, WITHIN))
        return (guess & 15) + select(is_high, 1, 0)
    index = select(v >= MIDPOINT[0], 1, 0)
    for i in range(1, 15):
        index = index + select(v >= MIDPOINT[i], 1, 0)
    return index


@inlined
def level_sums(xt, w, inverse):
    """Per lane the sums of w*q*x and w*q*q for the levels q nearest to inverse * x."""
    sum_qx = splat(ZERO)
    sum_q2 = splat(ZERO)
    for i in range(N):
        x = load(xt, i * WIDTH)
        q = nearest_level(inverse * x)
        wq = load(w, i * WIDTH) * q
        sum_qx = sum_qx + wq * x
        sum_q2 = sum_q2 + wq * q
    return sum_qx, sum_q2


@inlined
def fit_scale(xt, w):
    """Scale of WIDTH groups: the best of 16 inverse scales around first level / largest weight; 0 for all-zero groups.

    xt, w  f32 [N, WIDTH]  weights, and how much each one's error counts
    """
    amax, largest = signed_abs_max(xt, N)
    sum_qx, sum_q2 = level_sums(xt, w, ONE / ((ZERO - largest) / FIRST))
    scale = select(sum_q2 > ZERO, sum_qx / sum_q2, ZERO)
    best = scale * sum_qx
    for step in range(-TRIES, TRIES + 1):
        sum_qx, sum_q2 = level_sums(xt, w, (np.float32(step) + FIRST) / largest)
        better = (sum_q2 > ZERO) & (sum_qx * sum_qx > best * sum_q2)
        scale = select(better, sum_qx / sum_q2, scale)
        best = select(better, scale * sum_qx, best)
    return select(amax < EPSILON, ZERO, scale)


@inlined
def store_codes(xt, inverse, turned, codes):
    """Indices of the levels nearest to inverse * x, as bytes in the order of the weights."""
    for i in range(N):
        store(turned, i * WIDTH, narrow(nearest_index(inverse * load(xt, i * WIDTH))))
    turn_back(turned, N, codes, 0, N)


@inlined
def encode_blocks_of_32(x, importance, out):
    """IQ4_NL; importance f32 [n], or [0]: none."""
    xt = scratch_f32(N * WIDTH)
    w = scratch_f32(N * WIDTH)
    d = scratch_i32(WIDTH)
    turned = scratch_u8(CHUNK_WEIGHTS)
    codes = scratch_u8(CHUNK_WEIGHTS)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_importance(importance, chunk * CHUNK_WEIGHTS, xt, N, w)
        scale = fit_scale(xt, w)
        store(d, 0, to_half(scale))
        store_codes(xt, reciprocal(scale), turned, codes)  # of the scale before it is rounded to half
        for b in range(WIDTH):
            at = (chunk * WIDTH + b) * 18
            out[at] = d[b] & 255
            out[at + 1] = d[b] >> 8
            pack_halves(codes, 32 * b, out, at + 2)


@inlined
def encode_blocks_of_256(x, importance, out):
    """IQ4_XS; importance f32 [n], or [0]: none."""
    xt = scratch_f32(N * WIDTH)
    w = scratch_f32(N * WIDTH)
    values = scratch_f32(WIDTH)
    largest = scratch_f32(WIDTH)
    scales = scratch_i32(WIDTH)
    d = scratch_i32(WIDTH)
    turned = scratch_u8(CHUNK_WEIGHTS)
    codes = scratch_u8(CHUNK_WEIGHTS)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_importance(importance, chunk * CHUNK_WEIGHTS, xt, N, w)
        scale = fit_scale(xt, w)
        store(values, 0, scale)
        block_signed_abs_max(values, 8, largest)
        unit = load(largest, 0) / np.float32(-32)
        store(d, 0, to_half(unit))
        s = clamp(nearest(reciprocal(unit) * scale), -32, 31)
        store(scales, 0, s + 32)
        store_codes(xt, reciprocal(unit * to_float(s)), turned, codes)
        for b in range(WIDTH // 8):
            pack_xs_block(codes, 256 * b, scales, 8 * b, d, out, (chunk * WIDTH // 8 + b) * 136)


@encoder("IQ4_NL")
def encode_iq4_nl(x, out):
    """Encode float32 weights as IQ4_NL.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 18]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_iq4_nl_impl.
    """
    encode_blocks_of_32(x, x[:0], out)


@encoder("IQ4_NL")
def encode_iq4_nl_weighted(x, w, out):
    """Encode float32 weights as IQ4_NL; w f32 [n], what each one's error counts; the rest as without it."""
    encode_blocks_of_32(x, w, out)


@encoder("IQ4_XS")
def encode_iq4_xs(x, out):
    """Encode float32 weights as IQ4_XS.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 136]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_iq4_nl_impl.
    """
    encode_blocks_of_256(x, x[:0], out)


@encoder("IQ4_XS")
def encode_iq4_xs_weighted(x, w, out):
    """Encode float32 weights as IQ4_XS; w f32 [n], what each one's error counts; the rest as without it."""
    encode_blocks_of_256(x, w, out)


@inlined
def pack_xs_block(codes, c, scales, g, d, out, at):
    """136 bytes; picture in formats/iq4_xs.py."""
    out[at] = d[g] & 255
    out[at + 1] = d[g] >> 8
    high = 0
    for j in range(8):
        high |= (scales[g + j] >> 4) << (2 * j)
    out[at + 2] = high & 255
    out[at + 3] = high >> 8
    for j in range(4):
        out[at + 4 + j] = (scales[g + 2 * j] & 15) | ((scales[g + 2 * j + 1] & 15) << 4)
    for j in range(8):
        pack_halves(codes, c + 32 * j, out, at + 8 + 16 * j)
