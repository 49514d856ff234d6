"""Encoder of Q3_K.

Layout in formats/q3_k.py; algorithm of llama.cpp 0c1e57098, ggml/src/ggml-quants.c `make_q3_quants` and
`quantize_row_q3_K_ref`.

Each step of the search needs the sums that the step before has left, a chain of some 70 cycles with a division in it.
So two sets of LANES groups go through it together: while one waits, the other computes.
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
    pack_bits,
    pack_pairs,
    scratch_f32,
    signed_abs_max,
    to_half,
    turn_codes_back,
    turn_groups,
)
from pythia_gguf.kernels.signed_scale import fit_signed_scale, searched_code
from pythia_gguf.kernels.simd import LANES, any_lane, load, narrow, select, splat, store, to_float
from pythia_gguf.kernels.weighted import WEIGHTED_CHUNK, lane_sums, spread, spread_one, turn_values

N = 16
SET_WEIGHTS = LANES * N
SETS = 2
CHUNK_WEIGHTS = SETS * SET_WEIGHTS
BLOCKS = SET_WEIGHTS // 256
GROUPS = WEIGHTED_CHUNK // N
LOW = np.float32(-4)
HIGH = np.float32(3)
TOP_SCALE = np.float32(32)
SWEEPS = 5


@inlined
def first_levels(xt, w2, w3, levels):
    """Levels of one set for the scale -4 / largest weight, and the sums of w*x*l and w*l*l, w = x*x.

    xt          f32 [N, LANES]  weights
    w2, w3      f32 [N, LANES]  result, x squared and cubed
    levels      f32 [N, LANES]  result, -4..3
    """
    _, largest = signed_abs_max(xt, N)
    inverse = LOW / largest
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(N):
        x = load(xt, i * LANES)
        level = clamp((inverse * x + MAGIC) - MAGIC, LOW, HIGH)
        w = x * x
        wx = w * x
        store(w2, i * LANES, w)
        store(w3, i * LANES, wx)
        store(levels, i * LANES, level)
        sum_lx = sum_lx + wx * level
        sum_l2 = sum_l2 + (w * level) * level
    return sum_lx, sum_l2


@inlined
def move_level(xt, w2, w3, levels, i, sum_lx, sum_l2):
    """Move level i of one set to where the scale without it would put it, in the lanes where that explains more.

    Returns the sums after the move, and the lanes that moved.
    """
    level = load(levels, i * LANES)
    w = load(w2, i * LANES)
    wx = load(w3, i * LANES)
    lx = sum_lx - wx * level
    l2 = sum_l2 - (w * level) * level
    better = to_float(clamp(nearest((load(xt, i * LANES) * l2) / lx), -4, 3))
    try_lx = lx + wx * better
    try_l2 = l2 + (w * better) * better
    move = (lx > ZERO) & (better != level) & (try_l2 > ZERO)
    move = move & ((try_lx * try_lx) * sum_l2 > (sum_lx * sum_lx) * try_l2)
    store(levels, i * LANES, select(move, better, level))
    return select(move, try_lx, sum_lx), select(move, try_l2, sum_l2), move


@inlined
def fit_scales(xt_a, xt_b, w2_a, w2_b, w3_a, w3_b, levels_a, levels_b):
    """Scales and levels of two sets of LANES groups; a scale is not valid for groups that count as all zero.

    A sweep that moves nothing would be repeated without effect, so lanes need not stop one by one.
    """
    lx_a, l2_a = first_levels(xt_a, w2_a, w3_a, levels_a)
    lx_b, l2_b = first_levels(xt_b, w2_b, w3_b, levels_b)
    for _ in range(SWEEPS):
        moved = splat(ZERO) != splat(ZERO)
        for i in range(N):
            lx_a, l2_a, move_a = move_level(xt_a, w2_a, w3_a, levels_a, i, lx_a, l2_a)
            lx_b, l2_b, move_b = move_level(xt_b, w2_b, w3_b, levels_b, i, lx_b, l2_b)
            moved = moved | move_a | move_b
        if not any_lane(moved):
            break
    return select(l2_a > ZERO, lx_a / l2_a, ZERO), select(l2_b > ZERO, lx_b / l2_b, ZERO)


@kernel
def encode_q3_k(x, out):
    """Encode float32 weights as Q3_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 110]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q3_K_ref.
    """
    xt_a, xt_b = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    w2_a, w2_b = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    w3_a, w3_b = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    levels_a, levels_b = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    values = scratch_f32(LANES)
    largest = scratch_f32(LANES)
    scales = np.empty(LANES, np.int32)
    d = np.empty(LANES, np.int32)
    turned = np.empty(SET_WEIGHTS, np.uint8)
    codes = np.empty(SET_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt_a)
        turn_groups(x, chunk * CHUNK_WEIGHTS + SET_WEIGHTS, N, xt_b)
        scale_a, scale_b = fit_scales(xt_a, xt_b, w2_a, w2_b, w3_a, w3_b, levels_a, levels_b)
        at = chunk * SETS * BLOCKS * 110
        store_set(xt_a, levels_a, scale_a, values, largest, scales, d, turned, codes, out, at)
        store_set(xt_b, levels_b, scale_b, values, largest, scales, d, turned, codes, out, at + BLOCKS * 110)


@inlined
def store_set(xt, levels, scale, values, largest, scales, d, turned, codes, out, at):
    """Blocks of one set from its scales and levels: 6-bit scales, codes for the stored scales, packing."""
    amax, _ = signed_abs_max(xt, N)
    dead = amax < EPSILON
    scale = select(dead, ZERO, scale)
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
    store_codes(xt, levels, stored, dead, turned, codes)
    for b in range(BLOCKS):
        pack_block(codes, b * 256, scales, 16 * b, d, out, at + b * 110)


@inlined
def store_codes(xt, levels, stored, dead, turned, codes):
    """Codes of LANES groups for their stored scales."""
    for i in range(N):
        q = clamp(nearest(load(xt, i * LANES) / stored), -4, 3) + 4
        store(turned, i * LANES, narrow(q))
    if any_lane(stored == ZERO):
        keep_searched_codes(xt, levels, stored, dead, turned)
    turn_codes_back(turned, N, codes)


@kernel
def encode_q3_k_weighted(x, w, out):
    """Encode float32 weights as Q3_K.

    x, w  f32 [n]              finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 256 * 110]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q3_K_impl.
    """
    xt, wt, levels = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    values, sums, inverses = scratch_f32(GROUPS), scratch_f32(GROUPS), scratch_f32(GROUPS)
    values_t, sums_t = scratch_f32(16 * LANES), scratch_f32(16 * LANES)
    codes_t = np.empty(16 * LANES, np.int32)
    scales, d = np.empty(GROUPS, np.int32), np.empty(GROUPS, np.int32)
    turned = np.empty(SET_WEIGHTS, np.uint8)
    codes = np.empty(SET_WEIGHTS, np.uint8)
    for start in range(0, x.size, WEIGHTED_CHUNK):
        for g in range(0, GROUPS, LANES):
            turn_groups(x, start + g * N, N, xt)
            turn_groups(w, start + g * N, N, wt)
            scale, inverse, _ = fit_signed_scale(xt, wt, N, -LOW)
            store(values, g, scale)
            store(sums, g, lane_sums(wt, N))
            store(inverses, g, inverse)
        turn_values(values, 16, values_t)
        turn_values(sums, 16, sums_t)
        unit, inverse, dead = fit_signed_scale(values_t, sums_t, 16, TOP_SCALE)
        for i in range(16):
            store(codes_t, i * LANES, searched_code(inverse, load(values_t, i * LANES), dead, TOP_SCALE))
        spread(codes_t, 16, scales)
        store(codes_t, 0, to_half(unit))
        spread_one(codes_t, 16, d)
        for g in range(0, GROUPS, LANES):
            turn_groups(x, start + g * N, N, xt)
            amax, _ = signed_abs_max(xt, N)
            for i in range(N):
                level = (load(inverses, g) * load(xt, i * LANES) + MAGIC) - MAGIC
                store(levels, i * LANES, clamp(level, LOW, HIGH))
            stored = from_half(load(d, g)) * to_float(load(scales, g) - 32)
            store_codes(xt, levels, stored, amax < EPSILON, turned, codes)
            for b in range(BLOCKS):
                pack_block(codes, b * 256, scales, g + 16 * b, d, out, (start // 256 + g // 16 + b) * 110)


@inlined
def keep_searched_codes(xt, levels, stored, dead, turned):
    """Codes again, where a group whose stored scale is 0 keeps those of the search (0 when it is all zero)."""
    for i in range(N):
        searched = select(dead, 0, nearest(load(levels, i * LANES)) + 4)
        q = clamp(nearest(load(xt, i * LANES) / stored), -4, 3) + 4
        store(turned, i * LANES, narrow(select(stored == ZERO, searched, q)))


@inlined
def pack_block(codes, c, scales, g, d, out, at):
    """110 bytes; picture in formats/q3_k.py."""
    pack_bits(codes, c, 2, out, at)
    pack_pairs(codes, c, out, at + 32)
    for j in range(8):
        out[at + 96 + j] = (scales[g + j] & 15) | ((scales[g + j + 8] & 15) << 4)
    for j in range(4):
        low = (scales[g + j] >> 4) | ((scales[g + j + 4] >> 4) << 2)
        out[at + 104 + j] = low | ((scales[g + j + 8] >> 4) << 4) | ((scales[g + j + 12] >> 4) << 6)
    out[at + 108] = d[g] & 255
    out[at + 109] = d[g] >> 8
