"""Encoder of Q2_K.

Knows nothing of files or threads. Layout in formats/q2_k.py; algorithm of llama.cpp 0c1e57098,
ggml/src/ggml-quants.c `quantize_row_q2_K_ref`.
"""

import numpy as np

from pythia_gguf.kernels.jit import inlined, kernel
from pythia_gguf.kernels.lanes import (
    ZERO,
    block_max,
    from_half,
    nearest,
    pack_pairs,
    scratch_f32,
    to_half,
    turn_codes_back,
    turn_groups,
)
from pythia_gguf.kernels.scale_min import fit_scale_min, requantize
from pythia_gguf.kernels.simd import LANES, absolute, load, select, store, to_float

N = 16
CHUNK_WEIGHTS = LANES * N
BLOCKS = CHUNK_WEIGHTS // 256
TOP_SCALE = np.float32(15)


@inlined
def store_scales(values, largest, integers):
    """Quantize one value per group to 4 bits against its block's largest; returns the unit's float16 bits per lane."""
    block_max(values, 16, largest)
    top = load(largest, 0)
    q = nearest((TOP_SCALE / top) * load(values, 0))
    store(integers, 0, select(top > ZERO, q, 0))
    return to_half(select(top > ZERO, top / TOP_SCALE, ZERO))


@kernel
def encode_q2_k(x, out):
    """Encode float32 weights as Q2_K.

    x    f32 [n]             finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 84]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q2_K_ref.
    """
    xt = scratch_f32(N * LANES)
    w = scratch_f32(N * LANES)
    steps = scratch_f32(N * LANES)
    values = scratch_f32(LANES)
    largest = scratch_f32(LANES)
    scales = np.empty(LANES, np.int32)
    minima = np.empty(LANES, np.int32)
    d = np.empty(LANES, np.int32)
    d_min = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        for i in range(N):
            store(w, i * LANES, absolute(load(xt, i * LANES)))
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
        turn_codes_back(turned, N, codes)
        for b in range(BLOCKS):
            at = (chunk * BLOCKS + b) * 84
            for g in range(16):
                out[at + g] = scales[16 * b + g]
            pack_pairs(codes, b * 256, out, at + 16)
            out[at + 80] = d[16 * b] & 255
            out[at + 81] = d[16 * b] >> 8
            out[at + 82] = d_min[16 * b] & 255
            out[at + 83] = d_min[16 * b] >> 8
