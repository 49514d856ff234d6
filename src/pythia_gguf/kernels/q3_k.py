"""Encoder of Q3_K.

Layout in formats/q3_k.py; algorithm of llama.cpp 0c1e57098, ggml/src/ggml-quants.c `make_q3_quants` and
`quantize_row_q3_K_ref`.

Each step of the search needs the sums that the step before has left, a chain of some 70 cycles with a division in it.
So two sets of WIDTH groups go through it together: while one waits, the other computes. A sweep of the search that
moves nothing is a group's last one. For four of five groups of ordinary weights that is the first, so all groups make
one sweep, and those that have moved are collected to go on together.
"""

import numpy as np

from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    EPSILON,
    MAGIC,
    ONE,
    WIDTH,
    ZERO,
    block_signed_abs_max,
    clamp,
    from_half,
    load,
    nearest,
    pack_bits,
    pack_pairs,
    signed_abs_max,
    splat,
    to_half,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.signed_scale import fit_signed_scale, searched_code
from pythia_gguf.kernels.simd import absolute, any_lane, bits, from_bits, load16, narrow, select, store, to_float
from pythia_gguf.kernels.weighted import WEIGHTED_CHUNK, lane_sums, spread, spread_one, turn_values

N = 16
SET_WEIGHTS = WIDTH * N
TOGETHER = 2 * WIDTH
ROOM = 2 * TOGETHER * N
CHUNK_GROUPS = 256
CHUNK_WEIGHTS = CHUNK_GROUPS * N
BLOCKS = SET_WEIGHTS // 256
GROUPS = WEIGHTED_CHUNK // N
LOW = np.float32(-4)
HIGH = np.float32(3)
TOP_SCALE = np.float32(32)
SWEEPS = 5


@inlined
def first_levels(xt, w2, w3, levels, at):
    """Levels of one set for the scale -4 / largest weight, and the sums of w*x*l and w*l*l, w = x*x.

    xt          f32 [2, N, WIDTH]  weights; the set begins at element `at`
    w2, w3      f32 [2, N, WIDTH]  result, x squared and cubed
    levels      f32 [2, N, WIDTH]  result, -4..3
    """
    _, largest = signed_abs_max(xt[at:], N)
    inverse = LOW / largest
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(at, at + SET_WEIGHTS, WIDTH):
        x = load(xt, i)
        level = clamp((inverse * x + MAGIC) - MAGIC, LOW, HIGH)
        w = x * x
        wx = w * x
        store(w2, i, w)
        store(w3, i, wx)
        store(levels, i, level)
        sum_lx = sum_lx + wx * level
        sum_l2 = sum_l2 + (w * level) * level
    return sum_lx, sum_l2


@inlined
def move_level(xt, w2, w3, levels, i, sum_lx, sum_l2):
    """Move the levels from element i on to where the scales without them would put them, where that explains more.

    Returns the sums after the move, and in the lanes that moved a number other than 0.
    """
    level = load(levels, i)
    w = load(w2, i)
    wx = load(w3, i)
    lx = sum_lx - wx * level
    l2 = sum_l2 - (w * level) * level
    better = to_float(clamp(nearest((load(xt, i) * l2) / lx), -4, 3))
    try_lx = lx + wx * better
    try_l2 = l2 + (w * better) * better
    # lx > 0, try_l2 > 0 and better != level in one comparison, because AVX2 pays for every conjunction of masks. NaN in
    # lx or try_l2 makes the other comparison false.
    least = least_of(least_of(lx, try_l2), absolute(better - level))
    move = (least > ZERO) & ((try_lx * try_lx) * sum_l2 > (sum_lx * sum_lx) * try_l2)
    # The bits that change, because LLVM would make a masked store of a selection, which takes AMD's processors long.
    change = select(move, bits(better) ^ bits(level), 0)
    store(levels, i, from_bits(bits(level) ^ change))
    return select(move, try_lx, sum_lx), select(move, try_l2, sum_l2), change


@inlined
def least_of(a, b):
    """The smaller one lane by lane; b where one is NaN."""
    return select(a < b, a, b)


@inlined
def search(xt, n_sweeps, levels, scales, moved, room):
    """Scales and levels of TOGETHER groups; a scale is not valid for groups that count as all zero.

    xt        f32 [2, N, WIDTH]  weights
    n_sweeps  int                at most; the search ends after a sweep that has moved no group
    levels    f32 [2, N, WIDTH]  result
    scales    f32 [2, WIDTH]     result
    moved     i32 [2, WIDTH]     result, other than 0 for groups that the last sweep has moved
    room      f32 [ROOM]         scratch
    """
    w2, w3 = room[: TOGETHER * N], room[TOGETHER * N :]
    lx_a, l2_a = first_levels(xt, w2, w3, levels, 0)
    lx_b, l2_b = first_levels(xt, w2, w3, levels, SET_WEIGHTS)
    moved_a = moved_b = bits(splat(ZERO))
    for _ in range(n_sweeps):
        moved_a = moved_b = bits(splat(ZERO))
        for i in range(0, SET_WEIGHTS, WIDTH):
            lx_a, l2_a, change_a = move_level(xt, w2, w3, levels, i, lx_a, l2_a)
            lx_b, l2_b, change_b = move_level(xt, w2, w3, levels, SET_WEIGHTS + i, lx_b, l2_b)
            moved_a, moved_b = moved_a | change_a, moved_b | change_b
        if not any_lane((moved_a | moved_b) != 0):
            break
    store(scales, 0, select(l2_a > ZERO, lx_a / l2_a, ZERO))
    store(scales, WIDTH, select(l2_b > ZERO, lx_b / l2_b, ZERO))
    store(moved, 0, moved_a)
    store(moved, WIDTH, moved_b)


@inlined
def search_again(x, start, unfinished, n, levels, scales, moved, room):
    """Search to the end for n groups of the chunk that begins at x[start].

    unfinished      i32 [n]  which ones
    levels, scales  f32 of all the chunk's sets, as `search` gives them; those of these groups are replaced
    moved, room     scratch of `search`
    """
    chosen, xt, found = scratch_f32(TOGETHER * N), scratch_f32(TOGETHER * N), scratch_f32(TOGETHER * N)
    found_scales = scratch_f32(TOGETHER)
    for first in range(0, n, TOGETHER):
        # The last group is repeated to fill the last sets.
        for k in range(TOGETHER):
            store(chosen, k * N, load16(x, start + unfinished[min(first + k, n - 1)] * N))
        for s in (0, SET_WEIGHTS):
            turn_groups(chosen, s, N, xt[s:])
        search(xt, SWEEPS, found, found_scales, moved, room)
        for k in range(min(TOGETHER, n - first)):
            g = unfinished[first + k]
            scales[g] = found_scales[k]
            here, there = k // WIDTH * SET_WEIGHTS + k % WIDTH, g // WIDTH * SET_WEIGHTS + g % WIDTH
            for i in range(0, SET_WEIGHTS, WIDTH):
                levels[there + i] = found[here + i]


@encoder("Q3_K")
def encode_q3_k(x, out):
    """Encode float32 weights as Q3_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 110]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q3_K_ref.
    """
    xt, levels, found = scratch_f32(CHUNK_WEIGHTS), scratch_f32(CHUNK_WEIGHTS), scratch_f32(CHUNK_GROUPS)
    moved, room = scratch_i32(TOGETHER), scratch_f32(ROOM)
    unfinished = scratch_i32(CHUNK_GROUPS + 1)
    values = scratch_f32(WIDTH)
    largest = scratch_f32(WIDTH)
    scales = scratch_i32(WIDTH)
    d = scratch_i32(WIDTH)
    turned = scratch_u8(SET_WEIGHTS)
    codes = scratch_u8(SET_WEIGHTS)
    for start in range(0, x.size, CHUNK_WEIGHTS):
        # 1. One sweep for every group.
        n_unfinished = 0
        for g in range(0, CHUNK_GROUPS, TOGETHER):
            here = xt[g * N :]
            for s in (0, SET_WEIGHTS):
                turn_groups(x, start + g * N + s, N, here[s:])
            search(here, 1, levels[g * N :], found[g:], moved, room)
            for k in range(TOGETHER):
                unfinished[n_unfinished] = g + k
                n_unfinished += moved[k] != 0
        # 2. All sweeps for those that it has moved.
        search_again(x, start, unfinished, n_unfinished, levels, found, moved, room)
        # 3. Scales of blocks, codes for the scales as a reader will see them, and packing.
        for g in range(0, CHUNK_GROUPS, WIDTH):
            first, at = g * N, (start + g * N) // 256 * 110
            scale = load(found, g)
            store_set(xt[first:], levels[first:], scale, values, largest, scales, d, turned, codes, out, at)


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
    """Codes of WIDTH groups for their stored scales."""
    for i in range(N):
        q = clamp(nearest(load(xt, i * WIDTH) / stored), -4, 3) + 4
        store(turned, i * WIDTH, narrow(q))
    if any_lane(stored == ZERO):
        keep_searched_codes(xt, levels, stored, dead, turned)
    turn_back(turned, N, codes, 0, N)


@encoder("Q3_K")
def encode_q3_k_weighted(x, w, out):
    """Encode float32 weights as Q3_K.

    x, w  f32 [n]              finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 256 * 110]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q3_K_impl.
    """
    xt, wt, levels = scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS), scratch_f32(SET_WEIGHTS)
    values, sums, inverses = scratch_f32(GROUPS), scratch_f32(GROUPS), scratch_f32(GROUPS)
    values_t, sums_t = scratch_f32(16 * WIDTH), scratch_f32(16 * WIDTH)
    codes_t = scratch_i32(16 * WIDTH)
    scales, d = scratch_i32(GROUPS), scratch_i32(GROUPS)
    turned = scratch_u8(SET_WEIGHTS)
    codes = scratch_u8(SET_WEIGHTS)
    for start in range(0, x.size, WEIGHTED_CHUNK):
        for g in range(0, GROUPS, WIDTH):
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
            store(codes_t, i * WIDTH, searched_code(inverse, load(values_t, i * WIDTH), dead, TOP_SCALE))
        spread(codes_t, 16, scales)
        store(codes_t, 0, to_half(unit))
        spread_one(codes_t, 16, d)
        for g in range(0, GROUPS, WIDTH):
            turn_groups(x, start + g * N, N, xt)
            amax, _ = signed_abs_max(xt, N)
            for i in range(N):
                level = (load(inverses, g) * load(xt, i * WIDTH) + MAGIC) - MAGIC
                store(levels, i * WIDTH, clamp(level, LOW, HIGH))
            stored = from_half(load(d, g)) * to_float(load(scales, g) - 32)
            store_codes(xt, levels, stored, amax < EPSILON, turned, codes)
            for b in range(BLOCKS):
                pack_block(codes, b * 256, scales, g + 16 * b, d, out, (start // 256 + g // 16 + b) * 110)


@inlined
def keep_searched_codes(xt, levels, stored, dead, turned):
    """Codes again, where a group whose stored scale is 0 keeps those of the search (0 when it is all zero)."""
    for i in range(N):
        searched = select(dead, 0, nearest(load(levels, i * WIDTH)) + 4)
        q = clamp(nearest(load(xt, i * WIDTH) / stored), -4, 3) + 4
        store(turned, i * WIDTH, narrow(select(stored == ZERO, searched, q)))


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
