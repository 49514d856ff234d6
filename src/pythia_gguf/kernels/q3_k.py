"""Encoder of Q3_K.

Knows nothing of files or threads. Layout in formats/q3_k.py; algorithm of llama.cpp 0c1e57098,
ggml/src/ggml-quants.c `make_q3_quants` and `quantize_row_q3_K_ref`.
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
from pythia_gguf.kernels.simd import LANES, any_lane, load, narrow, select, splat, store, to_float

N = 16
CHUNK_WEIGHTS = LANES * N
BLOCKS = CHUNK_WEIGHTS // 256
LOW = np.float32(-4)
HIGH = np.float32(3)
SWEEPS = 5


@inlined
def fit_scale(xt, levels):
    """Scale and levels of LANES groups: each level in turn moves to where the scale explains the group better.

    xt      f32 [N, LANES]  weights
    levels  f32 [N, LANES]  result, -4..3
    Returns the scale, and a mask of groups that count as all zero.
    """
    amax, largest = signed_abs_max(xt, N)
    inverse = LOW / largest
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(N):
        x = load(xt, i * LANES)
        level = clamp((inverse * x + MAGIC) - MAGIC, LOW, HIGH)
        store(levels, i * LANES, level)
        w = x * x
        sum_lx = sum_lx + (w * x) * level
        sum_l2 = sum_l2 + (w * level) * level
    for _ in range(SWEEPS):
        moved = amax < ZERO
        for i in range(N):
            x = load(xt, i * LANES)
            level = load(levels, i * LANES)
            w = x * x
            lx = sum_lx - (w * x) * level
            l2 = sum_l2 - (w * level) * level
            better = to_float(clamp(nearest((x * l2) / lx), -4, 3))
            try_lx = lx + (w * x) * better
            try_l2 = l2 + (w * better) * better
            move = (lx > ZERO) & (better != level) & (try_l2 > ZERO)
            move = move & ((try_lx * try_lx) * sum_l2 > (sum_lx * sum_lx) * try_l2)
            store(levels, i * LANES, select(move, better, level))
            sum_lx = select(move, try_lx, sum_lx)
            sum_l2 = select(move, try_l2, sum_l2)
            moved = moved | move
        if not any_lane(moved):
            break
    dead = amax < EPSILON
    return select(dead, ZERO, select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO)), dead


@kernel
def encode_q3_k(x, out):
    """Encode float32 weights as Q3_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 110]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q3_K_ref.
    """
    xt = scratch_f32(N * LANES)
    levels = scratch_f32(N * LANES)
    values = scratch_f32(LANES)
    largest = scratch_f32(LANES)
    scales = np.empty(LANES, np.int32)
    d = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        scale, dead = fit_scale(xt, levels)
        store(values, 0, scale)
        block_signed_abs_max(values, 16, largest)
        top = load(largest, 0)
        inverse = np.float32(-32) / top
        wrapped = (nearest(inverse * scale) << 24) >> 24  # C keeps it in an int8 before limiting it
        s = select(top == ZERO, 0, clamp(wrapped, -32, 31) + 32)
        half_d = to_half(select(top == ZERO, ZERO, ONE / inverse))
        store(scales, 0, s)
        store(d, 0, half_d)
        stored = from_half(half_d) * to_float(s - 32)
        kept = stored == ZERO
        for i in range(N):
            q = clamp(nearest(load(xt, i * LANES) / stored), -4, 3) + 4
            store(turned, i * LANES, narrow(q))
        if any_lane(kept):
            keep_searched_codes(xt, levels, stored, dead, turned)
        turn_codes_back(turned, N, codes)
        for b in range(BLOCKS):
            pack_block(codes, b * 256, scales, 16 * b, d, out, (chunk * BLOCKS + b) * 110)


@inlined
def keep_searched_codes(xt, levels, stored, dead, turned):
    """Codes again, where a group whose stored scale is 0 keeps those of the search (0 when it is all zero)."""
    for i in range(N):
        searched = select(dead, ZERO, load(levels, i * LANES) + np.float32(4))
        q = to_float(clamp(nearest(load(xt, i * LANES) / stored), -4, 3) + 4)
        store(turned, i * LANES, narrow(nearest(select(stored == ZERO, searched, q))))


@inlined
def pack_block(codes, c, scales, g, d, out, at):
    """110 bytes; picture in formats/q3_k.py."""
    for i in range(32):
        h = 0
        for k in range(8):
            h |= (codes[c + 32 * k + i] >> 2) << k
        out[at + i] = h
    pack_pairs(codes, c, out, at + 32)
    for j in range(8):
        out[at + 96 + j] = (scales[g + j] & 15) | ((scales[g + j + 8] & 15) << 4)
    for j in range(4):
        low = (scales[g + j] >> 4) | ((scales[g + j + 4] >> 4) << 2)
        out[at + 104 + j] = low | ((scales[g + j + 8] >> 4) << 4) | ((scales[g + j + 12] >> 4) << 6)
    out[at + 108] = d[g] & 255
    out[at + 109] = d[g] >> 8
