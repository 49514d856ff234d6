"""Encoders of the formats with plain blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

Without an importance matrix they do not search; with one, all but Q8_0 do.

Layouts in the files of the same names in formats/; algorithms of llama.cpp 0c1e57098, ggml/src/ggml-quants.c
`quantize_row_q4_0_ref` and its four siblings.
"""

import numpy as np

from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    WIDTH,
    ZERO,
    clamp,
    load,
    min_max,
    nearest,
    put_bytes,
    reciprocal,
    representable,
    signed_abs_max,
    splat,
    to_half,
    truncate,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.scale_min import fit_scale_min
from pythia_gguf.kernels.signed_scale import fit_signed_scale, searched_code
from pythia_gguf.kernels.simd import bits, narrow, select, store, to_float, to_int

N = 32
CHUNK_WEIGHTS = WIDTH * N
WEIGHTED_CHUNK = CHUNK_WEIGHTS
HALF = np.float32(0.5)


@inlined
def centred_code(x, inverse, n_levels):
    """A code of Q4_0 or Q5_0."""
    # C narrows to 8 bits before it takes the smaller.
    q = truncate(x * inverse + (np.float32(n_levels // 2) + HALF)) & 255
    return select(q > n_levels - 1, n_levels - 1, q)


@inlined
def shifted_code(x, low, inverse, n_levels):
    """A code of Q4_1 or Q5_1."""
    q = truncate((x - low) * inverse + HALF) & 255
    return select(q > 15, 15, q) if n_levels == 16 else q


@inlined
def pair_codes(turned, i, low, high, fifth_bits):
    """Put codes i and i + 16 of every group into one byte, as blocks do; called for i = 15, 14 .. 0.

    turned      u8 [16, WIDTH]  result, one lane a group
    fifth_bits  int lanes       bit 4 of code k in bit k; the bits of the pairs before, pushed up by one place
    Returns fifth_bits with those of this pair.
    """
    store(turned, i * WIDTH, narrow((low & 15) | (high << 4)))
    return (fifth_bits << 1) | ((low >> 4) & 1) | (((high >> 4) & 1) << 16)


@inlined
def encode_centred(x, out, n_levels):
    """Q4_0 (16 levels) and Q5_0 (32): one scale, whose sign makes the largest weight the lowest code."""
    xt = scratch_f32(N * WIDTH)
    d, fifth = scratch_i32(WIDTH), scratch_i32(WIDTH)
    turned = scratch_u8(16 * WIDTH)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        _, largest = signed_abs_max(xt, N)
        scale = largest / -np.float32(n_levels // 2)
        store(d, 0, to_half(scale))
        inverse = reciprocal(scale)
        fifth_bits = bits(splat(ZERO))
        for i in range(15, -1, -1):
            low = centred_code(load(xt, i * WIDTH), inverse, n_levels)
            high = centred_code(load(xt, (i + 16) * WIDTH), inverse, n_levels)
            fifth_bits = pair_codes(turned, i, low, high, fifth_bits)
        store(fifth, 0, fifth_bits)
        pack_blocks(d, 2, fifth, turned, n_levels, out, chunk)


@inlined
def search_centred(x, w, out, n_levels):
    """Q4_0 and Q5_0 with what each weight's error counts."""
    top = np.float32(n_levels // 2)
    xt, wt = scratch_f32(N * WIDTH), scratch_f32(N * WIDTH)
    d, fifth = scratch_i32(WIDTH), scratch_i32(WIDTH)
    turned = scratch_u8(16 * WIDTH)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_groups(w, chunk * CHUNK_WEIGHTS, N, wt)
        scale, inverse, dead = fit_signed_scale(xt, wt, N, top)
        store(d, 0, to_half(scale))
        fifth_bits = bits(splat(ZERO))
        for i in range(15, -1, -1):
            low = searched_code(inverse, load(xt, i * WIDTH), dead, top)
            high = searched_code(inverse, load(xt, (i + 16) * WIDTH), dead, top)
            fifth_bits = pair_codes(turned, i, low, high, fifth_bits)
        store(fifth, 0, fifth_bits)
        pack_blocks(d, 2, fifth, turned, n_levels, out, chunk)


@inlined
def encode_shifted(x, out, n_levels):
    """Q4_1 (16 levels) and Q5_1 (32): a scale and a minimum."""
    xt = scratch_f32(N * WIDTH)
    units, fifth = scratch_i32(WIDTH), scratch_i32(WIDTH)
    turned = scratch_u8(16 * WIDTH)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        minimum, maximum = min_max(xt, N)
        scale = (maximum - minimum) / np.float32(n_levels - 1)
        store(units, 0, to_half(scale) | (to_half(minimum) << 16))
        inverse = reciprocal(scale)
        fifth_bits = bits(splat(ZERO))
        for i in range(15, -1, -1):
            low = shifted_code(load(xt, i * WIDTH), minimum, inverse, n_levels)
            high = shifted_code(load(xt, (i + 16) * WIDTH), minimum, inverse, n_levels)
            fifth_bits = pair_codes(turned, i, low, high, fifth_bits)
        store(fifth, 0, fifth_bits)
        pack_blocks(units, 4, fifth, turned, n_levels, out, chunk)


@inlined
def search_shifted(x, w, out, n_levels):
    """Q4_1 and Q5_1 with what each weight's error counts."""
    top = n_levels - 1
    xt, wt, steps = scratch_f32(N * WIDTH), scratch_f32(N * WIDTH), scratch_f32(N * WIDTH)
    units, fifth = scratch_i32(WIDTH), scratch_i32(WIDTH)
    turned = scratch_u8(16 * WIDTH)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        turn_groups(w, chunk * CHUNK_WEIGHTS, N, wt)
        scale, minimum, inverse, won_minimum = fit_scale_min(
            xt, wt, steps, N, np.float32(top), np.float32(-0.9), np.float32(0.05), 36, False
        )
        store(units, 0, to_half(scale) | (to_half(minimum) << 16))
        fifth_bits = bits(splat(ZERO))
        for i in range(15, -1, -1):
            low = clamp(nearest(inverse * (load(xt, i * WIDTH) - won_minimum)), 0, top)
            high = clamp(nearest(inverse * (load(xt, (i + 16) * WIDTH) - won_minimum)), 0, top)
            fifth_bits = pair_codes(turned, i, low, high, fifth_bits)
        store(fifth, 0, fifth_bits)
        pack_blocks(units, 4, fifth, turned, n_levels, out, chunk)


@inlined
def pack_blocks(units, unit_bytes, fifth, turned, n_levels, out, chunk):
    """WIDTH blocks: float16 units, the fifth bits where there are 32 levels, and the pairs of codes.

    units   i32 [WIDTH]     bits of the scale, and above them those of the minimum if unit_bytes is 4
    fifth   i32 [WIDTH]     bit k is bit 4 of code k
    turned  u8 [16, WIDTH]  pairs of codes, one lane a block
    """
    head_bytes = unit_bytes if n_levels == 16 else unit_bytes + 4
    first, block_bytes = chunk * WIDTH * (head_bytes + 16), head_bytes + 16
    for b in range(WIDTH):
        put_bytes(out, first + b * block_bytes, units[b], unit_bytes)
        if n_levels == 32:
            put_bytes(out, first + b * block_bytes + unit_bytes, fifth[b], 4)
    turn_back(turned, 16, out, first + head_bytes, block_bytes)


@encoder("Q4_0")
def encode_q4_0(x, out):
    """Encode float32 weights as Q4_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 18]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_0_ref.
    """
    encode_centred(x, out, 16)


@encoder("Q5_0")
def encode_q5_0(x, out):
    """Encode float32 weights as Q5_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 22]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q5_0_ref.
    """
    encode_centred(x, out, 32)


@encoder("Q4_1")
def encode_q4_1(x, out):
    """Encode float32 weights as Q4_1.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 20]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_1_ref.
    """
    encode_shifted(x, out, 16)


@encoder("Q5_1")
def encode_q5_1(x, out):
    """Encode float32 weights as Q5_1.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 24]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q5_1_ref.
    """
    encode_shifted(x, out, 32)


@encoder("Q4_0")
def encode_q4_0_weighted(x, w, out):
    """Encode float32 weights as Q4_0.

    x, w  f32 [n]            finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 32 * 18]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_0_impl; so the others below.
    """
    search_centred(x, w, out, 16)


@encoder("Q5_0")
def encode_q5_0_weighted(x, w, out):
    """Encode float32 weights as Q5_0; as Q4_0 above."""
    search_centred(x, w, out, 32)


@encoder("Q4_1")
def encode_q4_1_weighted(x, w, out):
    """Encode float32 weights as Q4_1; as Q4_0 above."""
    search_shifted(x, w, out, 16)


@encoder("Q5_1")
def encode_q5_1_weighted(x, w, out):
    """Encode float32 weights as Q5_1; as Q4_0 above."""
    search_shifted(x, w, out, 32)


@encoder("Q8_0")
def encode_q8_0(x, out):
    """Encode float32 weights as Q8_0.

    x    f32 [n]            finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 32 * 34]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q8_0_ref.
    """
    xt = scratch_f32(N * WIDTH)
    d = scratch_i32(WIDTH)
    turned = scratch_u8(CHUNK_WEIGHTS)
    for chunk in range(x.size // CHUNK_WEIGHTS):
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        amax, _ = signed_abs_max(xt, N)
        scale = amax / np.float32(127)
        store(d, 0, to_half(scale))
        inverse = reciprocal(scale)
        for i in range(N):
            # roundf: halves go away from zero, unlike every other format here.
            v = representable(load(xt, i * WIDTH) * inverse)
            whole = to_int(v)
            rest = v - to_float(whole)
            whole = select(rest >= HALF, whole + 1, whole)
            store(turned, i * WIDTH, narrow(select(rest <= -HALF, whole - 1, whole)))
        first = chunk * WIDTH * 34
        for b in range(WIDTH):
            put_bytes(out, first + b * 34, d[b], 2)
        turn_back(turned, N, out, first + 2, 34)
