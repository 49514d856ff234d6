"""Encoders of Q6_K, with and without an importance matrix.

Layout in formats/q6_k.py; algorithm of llama.cpp 0c1e57098, ggml/src/ggml-quants.c `quantize_row_q6_K_ref` and
`quantize_row_q6_K_impl`.
"""

import numpy as np

from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    EPSILON,
    ONE,
    WIDTH,
    ZERO,
    block_signed_abs_max,
    clamp,
    from_half,
    load,
    load32,
    nearest,
    pack_pairs,
    to_half,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.signed_scale import fit_signed_scale, searched_code, turn_importance
from pythia_gguf.kernels.simd import absolute, any_lane, narrow, select, store, to_float

N = 16
CHUNK_WEIGHTS = WIDTH * N
WEIGHTED_CHUNK = CHUNK_WEIGHTS
BLOCKS = CHUNK_WEIGHTS // 256
TOP = np.float32(32)


@inlined
def encode_chunks(x, importance, out):
    """Both encoders: a weight's error counts as its square, unless there is an importance of each.

    importance  f32 [n], or [0]: none
    """
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
        scale, searched_inverse, dead = fit_signed_scale(xt, w, N, TOP)
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
            q = clamp(nearest(load(xt, i * WIDTH) / stored), -32, 31) + 32
            store(turned, i * WIDTH, narrow(q))
        if any_lane(kept):
            keep_searched_codes(xt, stored, searched_inverse, dead | dead_block, turned)
        turn_back(turned, N, codes, 0, N)
        for b in range(BLOCKS):
            pack_block(codes, b * 256, scales, 16 * b, d, out, (chunk * BLOCKS + b) * 210)


@encoder("Q6_K")
def encode_q6_k(x, out):
    """Encode float32 weights as Q6_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 210]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q6_K_ref.
    """
    encode_chunks(x, x[:0], out)


@encoder("Q6_K")
def encode_q6_k_weighted(x, w, out):
    """Encode float32 weights as Q6_K; w f32 [n], what each one's error counts; the rest as without it."""
    encode_chunks(x, w, out)


@inlined
def keep_searched_codes(xt, stored, inverse, dead, turned):
    """Codes again, where a group whose stored scale is 0 keeps those of the search (0 when it is all zero)."""
    for i in range(N):
        x = load(xt, i * WIDTH)
        q = clamp(nearest(x / stored), -32, 31) + 32
        store(turned, i * WIDTH, narrow(select(stored == ZERO, searched_code(inverse, x, dead, TOP), q)))


@inlined
def pack_block(codes, c, scales, g, d, out, at):
    """210 bytes; picture in formats/q6_k.py."""
    for half in range(2):
        for run in range(2):
            s = c + 128 * half + 32 * run
            store(out, at + 64 * half + 32 * run, (load32(codes, s) & 15) | (load32(codes, s + 64) << 4))
    for i in range(0, 256, 32):
        store(codes, c + i, load32(codes, c + i) >> 4)
    pack_pairs(codes, c, out, at + 128)
    for j in range(16):
        out[at + 192 + j] = scales[g + j] & 255
    out[at + 208] = d[g] & 255
    out[at + 209] = d[g] >> 8
