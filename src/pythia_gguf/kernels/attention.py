"""Causal attention of one head over cached keys and values, with rotary positions.

Knows no layers. Keys lie in tiles of LANES positions, turned, so that a tile's scores are lanes; values lie as rows.
Sums run over absolute positions in one order, whatever else is computed with them: the same bits for every slice.

    keys    [tile][d][LANES], float16 bit patterns or float32: position p in tile p // LANES, lane p % LANES
    values  [position][width], width = the head's dimensions, rounded up to LANES
"""

import numpy as np

from pythia_gguf.kernels.curves import exponential
from pythia_gguf.kernels.halves import load_number16
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import to_half
from pythia_gguf.kernels.simd import LANES, fold_max, fold_sum, load, select, splat, store
from pythia_gguf.kernels.words import fused, no_floats

ZERO = np.float32(0)
ONE = np.float32(1)
MINUS = np.float32(-3.0e38)
HALF_MOST = np.float32(65504.0)  # a larger key or value would be infinite in the cache, and NaN after it
LANE = np.arange(LANES, dtype=np.float32)


@inlined
def rotate(x, start, cos_sin, at, n_rotated):
    """Turn the first n_rotated values of a head: value i with value i + n_rotated / 2, as GPT-NeoX pairs them.

    cos_sin  f32, from `at`: n_rotated / 2 cosines, then as many sines
    Source   Su et al., arXiv:2104.09864; pairing: transformers 5, models/gpt_neox, apply_rotary_pos_emb
    """
    half = n_rotated // 2
    for i in range(half):
        c, s = cos_sin[at + i], cos_sin[at + half + i]
        a, b = x[start + i], x[start + half + i]
        x[start + i] = a * c - b * s
        x[start + half + i] = b * c + a * s


@inlined
def keep(x, start, n, words, cached, at, stride):
    """Put n values into the cache: to cached[at], cached[at + stride], ..., rounded where it holds float16.

    words  i32 [LANES], scratch
    """
    if cached.itemsize == 4:
        for i in range(n):
            cached[at + i * stride] = x[start + i]
        return
    for i in range(0, n, LANES):
        v = load(x, start + i)
        v = select(v > HALF_MOST, HALF_MOST, select(v < -HALF_MOST, -HALF_MOST, v))
        store(words, 0, to_half(v))
        for j in range(min(LANES, n - i)):
            cached[at + (i + j) * stride] = words[j]


@inlined
def _score_four_tiles(q, q_start, head_dim, keys, at, scale, scores, to):
    """Scores of 128 positions: eight sums side by side hide the latency; each runs over d in the same order."""
    step = head_dim * LANES
    a = no_floats()
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    for i in range(head_dim):
        w, k = q[q_start + i], at + i * LANES
        a = fused(load_number16(keys, k), w, a)
        b = fused(load_number16(keys, k + 16), w, b)
        c = fused(load_number16(keys, k + step), w, c)
        d = fused(load_number16(keys, k + step + 16), w, d)
        e = fused(load_number16(keys, k + 2 * step), w, e)
        f = fused(load_number16(keys, k + 2 * step + 16), w, f)
        g = fused(load_number16(keys, k + 3 * step), w, g)
        h = fused(load_number16(keys, k + 3 * step + 16), w, h)
    store(scores, to, a * scale)
    store(scores, to + 16, b * scale)
    store(scores, to + 32, c * scale)
    store(scores, to + 48, d * scale)
    store(scores, to + 64, e * scale)
    store(scores, to + 80, f * scale)
    store(scores, to + 96, g * scale)
    store(scores, to + 112, h * scale)


@inlined
def _score_tile(q, q_start, head_dim, keys, at, scale, scores, to):
    """Scores of 32 positions."""
    a = no_floats()
    b = a
    for i in range(head_dim):
        w, k = q[q_start + i], at + i * LANES
        a = fused(load_number16(keys, k), w, a)
        b = fused(load_number16(keys, k + 16), w, b)
    store(scores, to, a * scale)
    store(scores, to + 16, b * scale)


@inlined
def _score_four_queries(q, start, stride, head_dim, keys, at, scale, scores, to, row):
    """Scores of 32 positions for four queries: a key is read and widened once."""
    a = no_floats()
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    for i in range(head_dim):
        k, m = load_number16(keys, at + i * LANES), load_number16(keys, at + i * LANES + 16)
        w = q[start + i]
        a, b = fused(k, w, a), fused(m, w, b)
        w = q[start + stride + i]
        c, d = fused(k, w, c), fused(m, w, d)
        w = q[start + 2 * stride + i]
        e, f = fused(k, w, e), fused(m, w, f)
        w = q[start + 3 * stride + i]
        g, h = fused(k, w, g), fused(m, w, h)
    store(scores, to, a * scale)
    store(scores, to + 16, b * scale)
    store(scores, to + row, c * scale)
    store(scores, to + row + 16, d * scale)
    store(scores, to + 2 * row, e * scale)
    store(scores, to + 2 * row + 16, f * scale)
    store(scores, to + 3 * row, g * scale)
    store(scores, to + 3 * row + 16, h * scale)


@inlined
def _softmax(scores, start, n_keys, n_tiles):
    """Scores become e**(score - largest), 0 from n_keys to the end of the tiles; returns 1 / their sum."""
    most = splat(MINUS)
    for at in range(n_keys // LANES * LANES, n_tiles * LANES, LANES):
        seen = load(LANE, 0) < np.float32(n_keys - at)
        store(scores, start + at, select(seen, load(scores, start + at), MINUS))
    for at in range(0, n_keys, LANES):
        v = load(scores, start + at)
        most = select(v > most, v, most)
    largest = fold_max(most)
    total = splat(ZERO)
    for at in range(0, n_tiles * LANES, LANES):
        e = exponential(load(scores, start + at) - largest)
        store(scores, start + at, e)
        total = total + e
    return ONE / fold_sum(total)


@inlined
def _mix_one(weights, n_keys, values, width, factor, mixed, to):
    """mixed[d] = factor * sum over p of weights[p] values[p, d]; two sums, of even and of odd positions."""
    for at in range(0, width, 32):
        a = no_floats()
        b, c, d = a, a, a
        for p in range(0, n_keys - 1, 2):
            w, i = weights[p], p * width + at
            a, b = fused(load_number16(values, i), w, a), fused(load_number16(values, i + 16), w, b)
            w, i = weights[p + 1], i + width
            c, d = fused(load_number16(values, i), w, c), fused(load_number16(values, i + 16), w, d)
        if n_keys % 2:
            w, i = weights[n_keys - 1], (n_keys - 1) * width + at
            a, b = fused(load_number16(values, i), w, a), fused(load_number16(values, i + 16), w, b)
        store(mixed, to + at, (a + c) * factor)
        store(mixed, to + at + 16, (b + d) * factor)


@inlined
def _add_values(sums, weights, p, row, k, m):
    """One position for four queries; k, m: 32 of its dimensions."""
    a, b, c, d, e, f, g, h = sums
    w = weights[p]
    a, b = fused(k, w, a), fused(m, w, b)
    w = weights[p + row]
    c, d = fused(k, w, c), fused(m, w, d)
    w = weights[p + 2 * row]
    e, f = fused(k, w, e), fused(m, w, f)
    w = weights[p + 3 * row]
    g, h = fused(k, w, g), fused(m, w, h)
    return a, b, c, d, e, f, g, h


@inlined
def _mix_four(weights, row, n_keys, values, width, factors, mixed, to):
    """The same for four queries; n_keys is even or the weights go on with a zero."""
    for at in range(0, width, 32):
        z = no_floats()
        even = (z, z, z, z, z, z, z, z)
        odd = even
        for p in range(0, n_keys, 2):
            i = p * width + at
            even = _add_values(even, weights, p, row, load_number16(values, i), load_number16(values, i + 16))
            i += width
            odd = _add_values(odd, weights, p + 1, row, load_number16(values, i), load_number16(values, i + 16))
        for j in range(4):
            store(mixed, to + j * width + at, (even[2 * j] + odd[2 * j]) * factors[j])
            store(mixed, to + j * width + at + 16, (even[2 * j + 1] + odd[2 * j + 1]) * factors[j])


@inlined
def attend_one(q, q_start, head_dim, width, keys, values, n_keys, scale, scores, mixed):
    """One query against its first n_keys positions; mixed[:head_dim] is what the head gives."""
    n_tiles = (n_keys + LANES - 1) // LANES
    tile = 0
    while tile + 4 <= n_tiles:
        _score_four_tiles(q, q_start, head_dim, keys, tile * head_dim * LANES, scale, scores, tile * LANES)
        tile += 4
    while tile < n_tiles:
        _score_tile(q, q_start, head_dim, keys, tile * head_dim * LANES, scale, scores, tile * LANES)
        tile += 1
    _mix_one(scores, n_keys, values, width, _softmax(scores, 0, n_keys, n_tiles), mixed, 0)


@inlined
def attend_four(q, q_start, stride, head_dim, width, keys, values, n_keys, scale, scores, row, factors, mixed):
    """Four queries `stride` apart, the first against n_keys positions, each against one more than the one before.

    scores   f32 [4, row], scratch
    factors  f32 [4], scratch
    mixed    f32 [4, width]
    """
    n_tiles = (n_keys + 3 + LANES - 1) // LANES
    for tile in range(n_tiles):
        at = tile * head_dim * LANES
        _score_four_queries(q, q_start, stride, head_dim, keys, at, scale, scores, tile * LANES, row)
    for j in range(4):
        factors[j] = _softmax(scores, j * row, n_keys + j, n_tiles)
    n_read = (n_keys + 4) // 2 * 2
    _mix_four(scores, row, n_read, values, width, factors, mixed, 0)
