"""Encoder of Q6_K.

Knows nothing of files or threads. Layout in formats/q6_k.py; algorithm of llama.cpp 0c1e57098,
ggml/src/ggml-quants.c `make_qx_quants` and `quantize_row_q6_K_ref`.
"""

import numpy as np

from pythia_gguf.kernels.jit import inlined, kernel
from pythia_gguf.kernels.lanes import (
    EPSILON,
    MAGIC,
    ONE,
    ZERO,
    block_signed_abs_max,
    clamp,
    from_half,
    nearest,
    pack_pairs,
    scratch_f32,
    signed_abs_max,
    to_half,
    turn_codes_back,
    turn_groups,
)
from pythia_gguf.kernels.simd import LANES, absolute, any_lane, load, narrow, select, splat, store, to_float

N = 16
CHUNK_WEIGHTS = LANES * N
BLOCKS = CHUNK_WEIGHTS // 256
TOP = np.float32(32)


@inlined
def level_sums(xt, inverse):
    """Per lane the sums of w*x*l and w*l*l, w = x*x, for levels l = clamp(nearest(inverse * x), -32, 31)."""
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(N):
        x = load(xt, i * LANES)
        level = clamp((inverse * x + MAGIC) - MAGIC, -TOP, TOP - ONE)
        w = x * x
        sum_lx = sum_lx + (w * x) * level
        sum_l2 = sum_l2 + (w * level) * level
    return sum_lx, sum_l2


@inlined
def fit_scale(xt):
    """Scale of LANES groups: the best of 19 inverse scales around -32 / largest weight.

    xt       f32 [N, LANES]  weights
    Returns the scale, the inverse scale that gave the levels, and a mask of groups that count as all zero.
    """
    amax, largest = signed_abs_max(xt, N)
    inverse = -TOP / largest
    sum_lx, sum_l2 = level_sums(xt, inverse)
    scale = select(sum_l2 == ZERO, ZERO, sum_lx / sum_l2)
    best = scale * sum_lx
    for step in range(-9, 10):
        if step != 0:
            candidate = -(TOP + np.float32(0.1) * np.float32(step)) / largest
            sum_lx, sum_l2 = level_sums(xt, candidate)
            better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
            scale = select(better, sum_lx / sum_l2, scale)
            best = select(better, scale * sum_lx, best)
            inverse = select(better, candidate, inverse)
    dead = amax < EPSILON
    return select(dead, ZERO, scale), inverse, dead


@kernel
def encode_q6_k(x, out):
    """Encode float32 weights as Q6_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 210]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q6_K_ref.
    """
    xt = scratch_f32(N * LANES)
    values = scratch_f32(LANES)
    largest = scratch_f32(LANES)
    scales = np.empty(LANES, np.int32)
    d = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        scale, searched_inverse, dead = fit_scale(xt)
        store(values, 0, scale)
        block_signed_abs_max(values, 16, largest)
        top = load(largest, 0)
        dead_block = absolute(top) < EPSILON
        inverse = np.float32(-128) / top
        half_d = to_half(select(dead_block, ZERO, ONE / inverse))
        limited = nearest(inverse * scale)
        s = select(dead_block, 0, select(limited > 127, 127, limited))
        store(scales, 0, s)
        store(d, 0, half_d)
        stored = from_half(half_d) * to_float(s)
        kept = stored == ZERO
        for i in range(N):
            q = clamp(nearest(load(xt, i * LANES) / stored), -32, 31) + 32
            store(turned, i * LANES, narrow(q))
        if any_lane(kept):
            keep_searched_codes(xt, stored, searched_inverse, dead | dead_block, turned)
        turn_codes_back(turned, N, codes)
        for b in range(BLOCKS):
            pack_block(codes, b * 256, scales, 16 * b, d, out, (chunk * BLOCKS + b) * 210)


@inlined
def keep_searched_codes(xt, stored, inverse, dead, turned):
    """Codes again, where a group whose stored scale is 0 keeps those of the search (0 when it is all zero)."""
    for i in range(N):
        x = load(xt, i * LANES)
        searched = select(dead, 0, clamp(nearest(inverse * x), -32, 31) + 32)
        q = clamp(nearest(x / stored), -32, 31) + 32
        store(turned, i * LANES, narrow(select(stored == ZERO, searched, q)))


@inlined
def pack_block(codes, c, scales, g, d, out, at):
    """210 bytes; picture in formats/q6_k.py."""
    for half in range(2):
        for run in range(2):
            s = c + 128 * half + 32 * run
            store(out, at + 64 * half + 32 * run, (load(codes, s) & 15) | (load(codes, s + 64) << 4))
    for i in range(0, 256, 32):
        store(codes, c + i, load(codes, c + i) >> 4)
    pack_pairs(codes, c, out, at + 128)
    for j in range(16):
        out[at + 192 + j] = scales[g + j] & 255
    out[at + 208] = d[g] & 255
    out[at + 209] = d[g] >> 8
