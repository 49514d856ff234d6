"""Encoder of Q2_K.

Layout in formats/q2_k.py; algorithm of llama.cpp 0c1e57098, ggml/src/ggml-quants.c `quantize_row_q2_K_ref`.
"""

import numpy as np

from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    WIDTH,
    ZERO,
    block_max,
    from_half,
    load,
    nearest,
    pack_pairs,
    to_half,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.scale_min import fit_scale_min, requantize
from pythia_gguf.kernels.simd import absolute, select, store, to_float
from pythia_gguf.kernels.weighted import WEIGHTED_CHUNK, quantize_values, search_scales

N = 16
CHUNK_WEIGHTS = WIDTH * N
BLOCKS = CHUNK_WEIGHTS // 256
GROUPS = WEIGHTED_CHUNK // N
TOP_SCALE = np.float32(15)


@inlined
def store_scales(values, largest, integers):
    """Quantize one value per group to 4 bits against its block's largest; returns the unit's float16 bits per lane."""
    block_max(values, 16, largest)
    top = load(largest, 0)
    q = nearest((TOP_SCALE / top) * load(values, 0))
    store(integers, 0, select(top > ZERO, q, 0))
    return to_half(select(top > ZERO, top / TOP_SCALE, ZERO))


@encoder("Q2_K")
def encode_q2_k(x, out):
    """Encode float32 weights as Q2_K.

    x    f32 [n]             finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 84]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q2_K_ref.
    """
    xt = scratch_f32(N * WIDTH)
    w = scratch_f32(N * WIDTH)
    steps = scratch_f32(N * WIDTH)
    values = scratch_f32(WIDTH)
    largest = scratch_f32(WIDTH)
    scales = scratch_i32(WIDTH)
    minima = scratch_i32(WIDTH)
    d = scratch_i32(WIDTH)
    d_min = scratch_i32(WIDTH)
    turned = scratch_u8(CHUNK_WEIGHTS)
    codes = scratch_u8(CHUNK_WEIGHTS)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        for i in range(N):
            store(w, i * WIDTH, absolute(load(xt, i * WIDTH)))
        scale, minimum, won_inverse, won_minimum = fit_scale_min(
            xt, w, steps, N, np.float32(3), np.float32(-0.5), np.float32(0.1), 15, True
        )
        store(values, 0, scale)
        half_d = store_scales(values, largest, scales)
        store(values, 0, ZERO - minimum)
        half_m = store_scales(values, largest, minima)
        store(d, 0, half_d)
        store(d_min, 0, half_m)
        # Both integers share a byte; llama.cpp ors them, so a negative one would spill into the other.
        shared = (load(scales, 0) | (load(minima, 0) << 4)) & 255
        store(scales, 0, shared)
        stored_scale = from_half(half_d) * to_float(shared & 15)
        stored_min = from_half(half_m) * to_float(shared >> 4)
        requantize(xt, N, 3, stored_scale, stored_min, won_inverse, won_minimum, turned)
        turn_back(turned, N, codes, 0, N)
        for b in range(BLOCKS):
            pack_block(codes, b, scales, d, d_min, 16 * b, out, (chunk * BLOCKS + b) * 84)


@inlined
def pack_block(codes, b, scales, d, d_min, g, out, at):
    """84 bytes of block b of those in `codes`, whose first group is g; picture in formats/q2_k.py."""
    for j in range(16):
        out[at + j] = scales[g + j]
    pack_pairs(codes, b * 256, out, at + 16)
    out[at + 80] = d[g] & 255
    out[at + 81] = d[g] >> 8
    out[at + 82] = d_min[g] & 255
    out[at + 83] = d_min[g] >> 8


@encoder("Q2_K")
def encode_q2_k_weighted(x, w, out):
    """Encode float32 weights as Q2_K.

    x, w  f32 [n]             finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 256 * 84]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q2_K_impl.
    """
    room = scratch_f32(3 * N * WIDTH)
    xt = room[: N * WIDTH]
    values, negated, sums = scratch_f32(GROUPS), scratch_f32(GROUPS), scratch_f32(GROUPS)
    inverses, searched = scratch_f32(GROUPS), scratch_f32(GROUPS)
    turned_values = scratch_f32(2 * 16 * WIDTH)
    turned_codes = scratch_i32(16 * WIDTH)
    scales, minima = scratch_i32(GROUPS), scratch_i32(GROUPS)
    d, d_min = scratch_i32(GROUPS), scratch_i32(GROUPS)
    turned = scratch_u8(CHUNK_WEIGHTS)
    codes = scratch_u8(CHUNK_WEIGHTS)
    for start in range(0, x.size, WEIGHTED_CHUNK):
        search_scales(x, w, start, N, 3, values, negated, sums, inverses, searched, room)
        quantize_values(values, sums, 16, TOP_SCALE, scales, d, turned_values, turned_codes)
        quantize_values(negated, sums, 16, TOP_SCALE, minima, d_min, turned_values, turned_codes)
        for g in range(0, GROUPS, WIDTH):
            shared = (load(scales, g) | (load(minima, g) << 4)) & 255
            store(scales, g, shared)
            turn_groups(x, start + g * N, N, xt)
            scale = from_half(load(d, g)) * to_float(shared & 15)
            offset = from_half(load(d_min, g)) * to_float(shared >> 4)
            requantize(xt, N, 3, scale, offset, load(inverses, g), load(searched, g), turned)
            turn_back(turned, N, codes, 0, N)
            for b in range(BLOCKS):
                pack_block(codes, b, scales, d, d_min, g + 16 * b, out, (start // 256 + g // 16 + b) * 84)
