"""Encoders of Q4_K and Q5_K, which differ in the number of bits of a code.

formats/q4_k.py and formats/q5_k.py show the layout. The algorithm is that of llama.cpp 0c1e57098,
ggml/src/ggml-quants.c `quantize_row_q4_K_ref` and `quantize_row_q5_K_ref`.
"""

import numpy as np

from pythia_gguf.kernels.encoder import encoder
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    WIDTH,
    ZERO,
    block_max,
    clamp,
    from_half,
    load,
    nearest,
    pack_bits,
    pack_nibbles,
    splat,
    to_half,
    turn_back,
    turn_groups,
)
from pythia_gguf.kernels.memory import scratch_f32, scratch_i32, scratch_u8
from pythia_gguf.kernels.scale_min import fit_scale_min, requantize
from pythia_gguf.kernels.simd import absolute, root, select, store, to_float
from pythia_gguf.kernels.weighted import WEIGHTED_CHUNK, quantize_values, search_scales

N = 32
CHUNK_WEIGHTS = WIDTH * N
BLOCKS = CHUNK_WEIGHTS // 256
GROUPS = WEIGHTED_CHUNK // N
TOP_SCALE = np.float32(63)


@inlined
def weigh(xt, w):
    """Importance of each weight's error: the group's root mean square plus its own magnitude."""
    squares = splat(ZERO)
    for i in range(N):
        x = load(xt, i * WIDTH)
        squares = squares + x * x
    rms = root(squares / np.float32(32))
    for i in range(N):
        store(w, i * WIDTH, rms + absolute(load(xt, i * WIDTH)))


@inlined
def store_scales(values, largest, integers):
    """Quantize one value per group to 6 bits against its block's largest; returns the unit's float16 bits per lane."""
    block_max(values, 8, largest)
    top = load(largest, 0)
    inverse = select(top > ZERO, TOP_SCALE / top, ZERO)
    q = nearest(inverse * load(values, 0)) & 255
    store(integers, 0, select(q > 63, 63, q))
    return to_half(top / TOP_SCALE)


@inlined
def pack_header(d, d_min, scales, minima, g, out, at):
    """Bytes 0..15 of the block whose first group is lane g; picture in formats/q4_k.py."""
    out[at] = d[g] & 255
    out[at + 1] = d[g] >> 8
    out[at + 2] = d_min[g] & 255
    out[at + 3] = d_min[g] >> 8
    for j in range(4):
        s, m = scales[g + j + 4], minima[g + j + 4]
        out[at + 4 + j] = scales[g + j] | ((s >> 4) << 6)
        out[at + 8 + j] = minima[g + j] | ((m >> 4) << 6)
        out[at + 12 + j] = (s & 15) | ((m & 15) << 4)


@inlined
def encode_chunks(x, out, top, r_min, n_steps):
    """Encode chunks of either format: Q4_K when top is 15, Q5_K when it is 31."""
    block_bytes = 144 if top == 15 else 176
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
        # 1. One group a lane: search a scale and a minimum for each of 32 groups at once.
        turn_groups(x, chunk * CHUNK_WEIGHTS, N, xt)
        weigh(xt, w)
        scale, minimum, won_inverse, won_minimum = fit_scale_min(
            xt, w, steps, N, np.float32(top), r_min, np.float32(0.1), n_steps, False
        )
        # 2. The 8 groups of a block share two float16 units; scales and minima become 6-bit multiples of them.
        store(values, 0, scale)
        half_d = store_scales(values, largest, scales)
        store(values, 0, ZERO - minimum)
        half_m = store_scales(values, largest, minima)
        store(d, 0, half_d)
        store(d_min, 0, half_m)
        # 3. The final codes are made with the scales as a reader will see them, not with those of the search.
        stored_scale = from_half(half_d) * to_float(load(scales, 0))
        stored_min = from_half(half_m) * to_float(load(minima, 0))
        requantize(xt, N, top, stored_scale, stored_min, won_inverse, won_minimum, turned)
        turn_back(turned, N, codes, 0, N)
        # 4. Lanes back to the order of the weights, block by block.
        for b in range(BLOCKS):
            at = (chunk * BLOCKS + b) * block_bytes
            pack_header(d, d_min, scales, minima, 8 * b, out, at)
            pack_codes(codes, b, top, out, at)


@inlined
def pack_codes(codes, b, top, out, at):
    """Pack bytes 16 and on of block b of those in `codes`."""
    if top == 31:
        pack_bits(codes, b * 256, 4, out, at + 16)
    first = at + (48 if top == 31 else 16)
    for run in range(4):
        pack_nibbles(codes, b * 256 + 64 * run, out, first + 32 * run)


@inlined
def unpack_header(out, at, scales, minima, g):
    """Read scales and minima back from the block's header: a code that is too large spills into another."""
    for j in range(4):
        low, middle, high = out[at + 4 + j], out[at + 8 + j], out[at + 12 + j]
        scales[g + j], minima[g + j] = low & 63, middle & 63
        scales[g + j + 4] = (high & 15) | ((low >> 6) << 4)
        minima[g + j + 4] = (high >> 4) | ((middle >> 6) << 4)


@inlined
def encode_weighted(x, w, out, top):
    """Encode either format with an importance matrix; w says how much the error of each weight counts."""
    block_bytes = 144 if top == 15 else 176
    room = scratch_f32(3 * N * WIDTH)
    xt = room[: N * WIDTH]
    values, negated, sums = scratch_f32(GROUPS), scratch_f32(GROUPS), scratch_f32(GROUPS)
    inverses, searched = scratch_f32(GROUPS), scratch_f32(GROUPS)
    turned_values = scratch_f32(2 * 8 * WIDTH)
    turned_codes = scratch_i32(8 * WIDTH)
    scales, minima = scratch_i32(GROUPS), scratch_i32(GROUPS)
    d, d_min = scratch_i32(GROUPS), scratch_i32(GROUPS)
    turned = scratch_u8(CHUNK_WEIGHTS)
    codes = scratch_u8(CHUNK_WEIGHTS)
    for start in range(0, x.size, WEIGHTED_CHUNK):
        # 1. A search for each group, then one for the 6-bit codes of a block's scales, weighted by their groups.
        search_scales(x, w, start, N, top, values, negated, sums, inverses, searched, room)
        quantize_values(values, sums, 8, TOP_SCALE, scales, d, turned_values, turned_codes)
        quantize_values(negated, sums, 8, TOP_SCALE, minima, d_min, turned_values, turned_codes)
        if top == 31:
            # llama.cpp limits the codes of Q5_K and not those of Q4_K; a search may end a little below 0, as 255.
            for g in range(0, GROUPS, WIDTH):
                store(scales, g, clamp(load(scales, g), 0, 63))
                store(minima, g, clamp(load(minima, g), 0, 63))
        # 2. Through the header and back, because in Q4_K a code that is too large changes another one there.
        for g in range(0, GROUPS, 8):
            at = (start // 256 + g // 8) * block_bytes
            pack_header(d, d_min, scales, minima, g, out, at)
            unpack_header(out, at, scales, minima, g)
        # 3. The final codes, with the scales as a reader will see them.
        for g in range(0, GROUPS, WIDTH):
            turn_groups(x, start + g * N, N, xt)
            scale = from_half(load(d, g)) * to_float(load(scales, g))
            offset = from_half(load(d_min, g)) * to_float(load(minima, g))
            requantize(xt, N, top, scale, offset, load(inverses, g), load(searched, g), turned)
            turn_back(turned, N, codes, 0, N)
            for b in range(BLOCKS):
                pack_codes(codes, b, top, out, (start // 256 + g // 8 + b) * block_bytes)


@encoder("Q4_K")
def encode_q4_k(x, out):
    """Encode float32 weights as Q4_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 144]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_K_ref.
    """
    encode_chunks(x, out, 15, np.float32(-1.0), 20)


@encoder("Q5_K")
def encode_q5_k(x, out):
    """Encode float32 weights as Q5_K.

    x    f32 [n]              finite; n a multiple of CHUNK_WEIGHTS
    out  u8  [n / 256 * 176]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q5_K_ref.
    """
    encode_chunks(x, out, 31, np.float32(-0.5), 15)


@encoder("Q4_K")
def encode_q4_k_weighted(x, w, out):
    """Encode float32 weights as Q4_K.

    x, w  f32 [n]              finite weights, and what each one's error counts; n a multiple of WEIGHTED_CHUNK
    out   u8  [n / 256 * 144]
    Source llama.cpp 0c1e57098 ggml/src/ggml-quants.c quantize_row_q4_K_impl.
    """
    encode_weighted(x, w, out, 15)


@encoder("Q5_K")
def encode_q5_k_weighted(x, w, out):
    """Encode float32 weights as Q5_K; as Q4_K above."""
    encode_weighted(x, w, out, 31)
