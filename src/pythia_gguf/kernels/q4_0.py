"""Encoders of the formats with plain blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

Without an importance matrix they do not search; with one, all but Q8_0 do.

Layouts in the files of the same names in formats/; algorithms of llama.cpp 0c1e57098, ggml/src/ggml-quants.c
`quantize_row_q4_0_ref` and its four siblings.
"""

import numpy as np

from pythia_gguf.kernels.jit import inlined, kernel
from pythia_gguf.kernels.lanes import (
    clamp,
    min_max,
    nearest,
    pack_halves,
    reciprocal,
    representable,
    scratch_f32,
    signed_abs_max,
    to_half,
    truncate,
    turn_codes_back,
    turn_groups,
)
from pythia_gguf.kernels.scale_min import fit_scale_min
from pythia_gguf.kernels.signed_scale import fit_signed_scale, searched_code
from pythia_gguf.kernels.simd import LANES, load, narrow, select, store, to_float, to_int

N = 32
CHUNK_WEIGHTS = LANES * N
WEIGHTED_CHUNK = CHUNK_WEIGHTS
HALF = np.float32(0.5)


@inlined
def pack_fifth_bits(codes, c, out, at):
    """4 bytes: bit j of the 32-bit word is bit 4 of code j."""
    for byte in range(4):
        h = 0
        for k in range(8):
            h |= ((codes[c + 8 * byte + k] >> 4) & 1) << k
        out[at + byte] = h


@inlined
def encode_centred(x, out, n_levels):
    """Q4_0 (16 levels) and Q5_0 (32): one scale, whose sign makes the largest weight the lowest code."""
    half_levels = np.float32(n_levels // 2)
    xt = scratch_f32(N * LANES)
    d = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        _, largest = signed_abs_max(xt, N)
        scale = largest / -half_levels
        store(d, 0, to_half(scale))
        inverse = reciprocal(scale)
        for i in range(N):
            # C narrows to 8 bits before it takes the smaller.
            q = truncate(load(xt, i * LANES) * inverse + (half_levels + HALF)) & 255
            store(turned, i * LANES, narrow(select(q > n_levels - 1, n_levels - 1, q)))
        turn_codes_back(turned, N, codes)
        pack_centred(codes, d, n_levels, out, chunk)


@inlined
def search_centred(x, w, out, n_levels):
    """Q4_0 and Q5_0 with what each weight's error counts."""
    half_levels = np.float32(n_levels // 2)
    xt = scratch_f32(N * LANES)
    wt = scratch_f32(N * LANES)
    d = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_groups(w, chunk * CHUNK_WEIGHTS, N, wt)
        scale, inverse, dead = fit_signed_scale(xt, wt, N, half_levels)
        store(d, 0, to_half(scale))
        for i in range(N):
            store(turned, i * LANES, narrow(searched_code(inverse, load(xt, i * LANES), dead, half_levels)))
        turn_codes_back(turned, N, codes)
        pack_centred(codes, d, n_levels, out, chunk)


@inlined
def pack_centred(codes, d, n_levels, out, chunk):
    """LANES blocks of Q4_0 or Q5_0."""
    block_bytes = 18 if n_levels == 16 else 22
    for b in range(LANES):
        at = (chunk * LANES + b) * block_bytes
        out[at] = d[b] & 255
        out[at + 1] = d[b] >> 8
        if n_levels == 32:
            pack_fifth_bits(codes, 32 * b, out, at + 2)
        pack_halves(codes, 32 * b, out, at + block_bytes - 16)


@inlined
def encode_shifted(x, out, n_levels):
    """Q4_1 (16 levels) and Q5_1 (32): a scale and a minimum."""
    top = np.float32(n_levels - 1)
    xt = scratch_f32(N * LANES)
    d = np.empty(LANES, np.int32)
    m = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        low, high = min_max(xt, N)
        scale = (high - low) / top
        store(d, 0, to_half(scale))
        store(m, 0, to_half(low))
        inverse = reciprocal(scale)
        for i in range(N):
            q = truncate((load(xt, i * LANES) - low) * inverse + HALF) & 255
            if n_levels == 16:
                q = select(q > 15, 15, q)
            store(turned, i * LANES, narrow(q))
        turn_codes_back(turned, N, codes)
        pack_shifted(codes, d, m, n_levels, out, chunk)


@inlined
def search_shifted(x, w, out, n_levels):
    """Q4_1 and Q5_1 with what each weight's error counts."""
    top = np.float32(n_levels - 1)
    xt = scratch_f32(N * LANES)
    wt = scratch_f32(N * LANES)
    steps = scratch_f32(N * LANES)
    d = np.empty(LANES, np.int32)
    m = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_groups(w, chunk * CHUNK_WEIGHTS, N, wt)
        scale, minimum, inverse, won_minimum = fit_scale_min(
            xt, wt, steps, N, top, np.float32(-0.9), np.float32(0.05), 36, False
        )
        store(d, 0, to_half(scale))
        store(m, 0, to_half(minimum))
        for i in range(N):
            q = clamp(nearest(inverse * (load(xt, i * LANES) - won_minimum)), 0, np.int32(top))
            store(turned, i * LANES, narrow(q))
        turn_codes_back(turned, N, codes)
        pack_shifted(codes, d, m, n_levels, out, chunk)


@inlined
def pack_shifted(codes, d, m, n_levels, out, chunk):
    """LANES blocks of Q4_1 or Q5_1."""
    block_bytes = 20 if n_levels == 16 else 24
    for b in range(LANES):
        at = (chunk * LANES + b) * block_bytes
        out[at] = d[b] & 255
        out[at + 1] = d[b] >> 8
        out[at + 2] = m[b] & 255
        out[at + 3] = m[b] >> 8
        if n_levels == 32:
            pack_fifth_bits(codes, 32 * b, out, at + 4)
        pack_halves(codes, 32 * b, out, at + block_bytes - 16)


@kernel
def encode_q4_0(x, out):
    """Encode float32 weights as Q4_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 18]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_0_ref.
    """
    encode_centred(x, out, 16)


@kernel
def encode_q5_0(x, out):
    """Encode float32 weights as Q5_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 22]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q5_0_ref.
    """
    encode_centred(x, out, 32)


@kernel
def encode_q4_1(x, out):
    """Encode float32 weights as Q4_1.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 20]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_1_ref.
    """
    encode_shifted(x, out, 16)


@kernel
def encode_q5_1(x, out):
    """Encode float32 weights as Q5_1.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 24]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q5_1_ref.
    """
    encode_shifted(x, out, 32)


@kernel
def encode_q4_0_weighted(x, w, out):
    """Encode float32 weights as Q4_0.

    x, w  f32 [n]            finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 32 * 18]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_0_impl; so the others below.
    """
    search_centred(x, w, out, 16)


@kernel
def encode_q5_0_weighted(x, w, out):
    """Encode float32 weights as Q5_0; as Q4_0 above."""
    search_centred(x, w, out, 32)


@kernel
def encode_q4_1_weighted(x, w, out):
    """Encode float32 weights as Q4_1; as Q4_0 above."""
    search_shifted(x, w, out, 16)


@kernel
def encode_q5_1_weighted(x, w, out):
    """Encode float32 weights as Q5_1; as Q4_0 above."""
    search_shifted(x, w, out, 32)


@kernel
def encode_q8_0(x, out):
    """Encode float32 weights as Q8_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 34]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q8_0_ref.
    """
    xt = scratch_f32(N * LANES)
    d = np.empty(LANES, np.int32)
    turned = np.empty(CHUNK_WEIGHTS, np.uint8)
    codes = np.empty(CHUNK_WEIGHTS, np.uint8)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        amax, _ = signed_abs_max(xt, N)
        scale = amax / np.float32(127)
        store(d, 0, to_half(scale))
        inverse = reciprocal(scale)
        for i in range(N):
            # roundf: halves go away from zero, unlike every other format here.
            v = representable(load(xt, i * LANES) * inverse)
            whole = to_int(v)
            rest = v - to_float(whole)
            whole = select(rest >= HALF, whole + 1, whole)
            store(turned, i * LANES, narrow(select(rest <= -HALF, whole - 1, whole)))
        turn_codes_back(turned, N, codes)
        for b in range(LANES):
            at = (chunk * LANES + b) * 34
            out[at] = d[b] & 255
            out[at + 1] = d[b] >> 8
            for i in range(32):
                out[at + 2 + i] = codes[32 * b + i]
