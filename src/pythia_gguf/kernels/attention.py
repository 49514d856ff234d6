"""Causal attention of one head over cached keys and values, with rotary positions.

Keys and values lie in tiles of LANES positions, which may be anywhere: a sequence is a list of tiles, and sequences
that begin alike share them. Sums run over absolute positions in one order, whatever else is computed with them, so that
every slice gives the same bits.

    A head's part of a tile, float16 bit patterns or float32; position p is in tile p // LANES, at p % LANES:
    keys    [d][LANES], turned, so that the scores of a tile are lanes
    values  [LANES][width], width = the head's dimensions, rounded up to LANES

Arguments that several functions share:

    cached      all tiles of a layer
    tiles       i64: offset in `cached` of each tile of the sequence
    keys_at, values_at  offsets in a tile of the head's keys and values
"""

import numpy as np

from pythia_gguf.kernels.cpu_features import has_wide_registers
from pythia_gguf.kernels.curves import exponential
from pythia_gguf.kernels.halves import load_number16, store_number16
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import cpu_context
from pythia_gguf.kernels.simd import LANES, fold_max, fold_sum, item, load, load16, put, select, splat, store
from pythia_gguf.kernels.words import fused, no_floats, prefetch, store_pair

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
        c, s = item(cos_sin, at + i), item(cos_sin, at + half + i)
        a, b = item(x, start + i), item(x, start + half + i)
        put(x, start + i, a * c - b * s)
        put(x, start + half + i, b * c + a * s)


@inlined
def keep(x, start, n, words, turned, cached, at, stride):
    """Put n values into the cache: to cached[at], cached[at + stride], ..., rounded where it holds float16.

    With a stride of 1 the numbers after the values come along, up to whole LANES.

    words   i32 [LANES], scratch
    turned  [LANES] of the cache's type, scratch
    """
    for i in range(0, n, LANES):
        v = load(x, start + i)
        if cached.itemsize == 2:
            v = select(v > HALF_MOST, HALF_MOST, select(v < -HALF_MOST, -HALF_MOST, v))
        if stride == 1:
            store_number16(cached, at + i, v, words)
            continue
        store_number16(turned, 0, v, words)
        for j in range(min(LANES, n - i)):
            put(cached, at + (i + j) * stride, item(turned, j))


@inlined
def _ask_for(cached, at):
    """Ask for 32 numbers: tiles lie far apart, so no processor guesses which one comes next."""
    prefetch(cached, at)
    if cached.itemsize == 4:
        prefetch(cached, at + 16)


@inlined
def _score_four_tiles(q, q_start, head_dim, cached, tiles, i_tile, n_tiles, keys_at, scale, scores, to):
    """Scores of 128 positions: eight sums side by side hide the latency; each runs over d in the same order."""
    first, second = tiles[i_tile] + keys_at, tiles[i_tile + 1] + keys_at
    third, fourth = tiles[i_tile + 2] + keys_at, tiles[i_tile + 3] + keys_at
    last = n_tiles - 1
    fifth, sixth = tiles[min(i_tile + 4, last)] + keys_at, tiles[min(i_tile + 5, last)] + keys_at
    seventh, eighth = tiles[min(i_tile + 6, last)] + keys_at, tiles[min(i_tile + 7, last)] + keys_at
    a = no_floats()
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    for i in range(head_dim):
        w, k = item(q, q_start + i), i * LANES
        _ask_for(cached, fifth + k)
        _ask_for(cached, sixth + k)
        _ask_for(cached, seventh + k)
        _ask_for(cached, eighth + k)
        a = fused(load_number16(cached, first + k), w, a)
        b = fused(load_number16(cached, first + k + 16), w, b)
        c = fused(load_number16(cached, second + k), w, c)
        d = fused(load_number16(cached, second + k + 16), w, d)
        e = fused(load_number16(cached, third + k), w, e)
        f = fused(load_number16(cached, third + k + 16), w, f)
        g = fused(load_number16(cached, fourth + k), w, g)
        h = fused(load_number16(cached, fourth + k + 16), w, h)
    store(scores, to, a * scale)
    store(scores, to + 16, b * scale)
    store(scores, to + 32, c * scale)
    store(scores, to + 48, d * scale)
    store(scores, to + 64, e * scale)
    store(scores, to + 80, f * scale)
    store(scores, to + 96, g * scale)
    store(scores, to + 112, h * scale)


@inlined
def score_tile(q, q_start, head_dim, cached, at, scale, scores, to):
    """Scores of 32 positions."""
    a = no_floats()
    b = a
    for i in range(head_dim):
        w, k = item(q, q_start + i), at + i * LANES
        a = fused(load_number16(cached, k), w, a)
        b = fused(load_number16(cached, k + 16), w, b)
    store(scores, to, a * scale)
    store(scores, to + 16, b * scale)


@inlined
def _score_eight_queries(q, start, stride, head_dim, cached, at, scale, scores, to, row):
    """Scores of 32 positions for eight queries: a key is read and widened once."""
    a0 = no_floats()
    a1, a2, a3, a4, a5, a6, a7 = a0, a0, a0, a0, a0, a0, a0
    b0, b1, b2, b3, b4, b5, b6, b7 = a0, a0, a0, a0, a0, a0, a0, a0
    for i in range(head_dim):
        k, m = load_number16(cached, at + i * LANES), load_number16(cached, at + i * LANES + 16)
        w = item(q, start + i)
        a0, b0 = fused(k, w, a0), fused(m, w, b0)
        w = item(q, start + stride + i)
        a1, b1 = fused(k, w, a1), fused(m, w, b1)
        w = item(q, start + 2 * stride + i)
        a2, b2 = fused(k, w, a2), fused(m, w, b2)
        w = item(q, start + 3 * stride + i)
        a3, b3 = fused(k, w, a3), fused(m, w, b3)
        w = item(q, start + 4 * stride + i)
        a4, b4 = fused(k, w, a4), fused(m, w, b4)
        w = item(q, start + 5 * stride + i)
        a5, b5 = fused(k, w, a5), fused(m, w, b5)
        w = item(q, start + 6 * stride + i)
        a6, b6 = fused(k, w, a6), fused(m, w, b6)
        w = item(q, start + 7 * stride + i)
        a7, b7 = fused(k, w, a7), fused(m, w, b7)
    store_pair(scores, to, a0 * scale, b0 * scale)
    store_pair(scores, to + row, a1 * scale, b1 * scale)
    store_pair(scores, to + 2 * row, a2 * scale, b2 * scale)
    store_pair(scores, to + 3 * row, a3 * scale, b3 * scale)
    store_pair(scores, to + 4 * row, a4 * scale, b4 * scale)
    store_pair(scores, to + 5 * row, a5 * scale, b5 * scale)
    store_pair(scores, to + 6 * row, a6 * scale, b6 * scale)
    store_pair(scores, to + 7 * row, a7 * scale, b7 * scale)


@inlined
def _score_by_four(q, start, stride, head_dim, cached, at, scale, scores, to, row):
    """The same, 16 positions and four queries at a time, which is what smaller registers hold."""
    for part in range(0, LANES, 16):
        for query in range(0, 8, 4):
            first, there = start + query * stride, to + query * row + part
            a0 = no_floats()
            a1, a2, a3 = a0, a0, a0
            for i in range(head_dim):
                k = load_number16(cached, at + i * LANES + part)
                a0 = fused(k, item(q, first + i), a0)
                a1 = fused(k, item(q, first + stride + i), a1)
                a2 = fused(k, item(q, first + 2 * stride + i), a2)
                a3 = fused(k, item(q, first + 3 * stride + i), a3)
            store(scores, there, a0 * scale)
            store(scores, there + row, a1 * scale)
            store(scores, there + 2 * row, a2 * scale)
            store(scores, there + 3 * row, a3 * scale)


@inlined
def softmax(scores, start, n_keys, n_tiles):
    """Replace scores by e**(score - largest), and by 0 from n_keys to the end of the tiles; returns 1 / their sum."""
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
def mix_one(weights, n_keys, cached, tiles, values_at, width, factor, mixed, to):
    """mixed[d] = factor * sum over p of weights[p] values[p, d]; two sums, of even and of odd positions."""
    for at in range(0, width, 32):
        a = no_floats()
        b, c, d = a, a, a
        for first in range(0, n_keys, LANES):
            n, here = min(LANES, n_keys - first), tiles[first // LANES] + values_at + at
            later = tiles[min(first + LANES, n_keys - 1) // LANES] + values_at + at
            for p in range(0, n - 1, 2):
                _ask_for(cached, later + p * width)
                _ask_for(cached, later + (p + 1) * width)
                w, i = item(weights, first + p), here + p * width
                a, b = fused(load_number16(cached, i), w, a), fused(load_number16(cached, i + 16), w, b)
                w, i = item(weights, first + p + 1), i + width
                c, d = fused(load_number16(cached, i), w, c), fused(load_number16(cached, i + 16), w, d)
            if n % 2:
                w, i = item(weights, n_keys - 1), here + (n - 1) * width
                a, b = fused(load_number16(cached, i), w, a), fused(load_number16(cached, i + 16), w, b)
        store(mixed, to + at, (a + c) * factor)
        store(mixed, to + at + 16, (b + d) * factor)


@inlined
def _mix_eight(weights, row, n_keys, cached, tiles, values_at, width, factors, mixed, to):
    """The same for eight queries, even positions first; if n_keys is odd, the weights go on with a zero."""
    for at in range(0, width, 32):
        for odd in range(2):
            a0 = no_floats()
            a1, a2, a3, a4, a5, a6, a7 = a0, a0, a0, a0, a0, a0, a0
            b0, b1, b2, b3, b4, b5, b6, b7 = a0, a0, a0, a0, a0, a0, a0, a0
            for first in range(0, n_keys, LANES):
                n, here = min(LANES, n_keys - first), tiles[first // LANES] + values_at + at
                for p in range(odd, n, 2):
                    k, m = load_number16(cached, here + p * width), load_number16(cached, here + p * width + 16)
                    w = item(weights, first + p)
                    a0, b0 = fused(k, w, a0), fused(m, w, b0)
                    w = item(weights, first + p + row)
                    a1, b1 = fused(k, w, a1), fused(m, w, b1)
                    w = item(weights, first + p + 2 * row)
                    a2, b2 = fused(k, w, a2), fused(m, w, b2)
                    w = item(weights, first + p + 3 * row)
                    a3, b3 = fused(k, w, a3), fused(m, w, b3)
                    w = item(weights, first + p + 4 * row)
                    a4, b4 = fused(k, w, a4), fused(m, w, b4)
                    w = item(weights, first + p + 5 * row)
                    a5, b5 = fused(k, w, a5), fused(m, w, b5)
                    w = item(weights, first + p + 6 * row)
                    a6, b6 = fused(k, w, a6), fused(m, w, b6)
                    w = item(weights, first + p + 7 * row)
                    a7, b7 = fused(k, w, a7), fused(m, w, b7)
            _mix_pair(mixed, to + at, a0, b0, factors[0], odd)
            _mix_pair(mixed, to + width + at, a1, b1, factors[1], odd)
            _mix_pair(mixed, to + 2 * width + at, a2, b2, factors[2], odd)
            _mix_pair(mixed, to + 3 * width + at, a3, b3, factors[3], odd)
            _mix_pair(mixed, to + 4 * width + at, a4, b4, factors[4], odd)
            _mix_pair(mixed, to + 5 * width + at, a5, b5, factors[5], odd)
            _mix_pair(mixed, to + 6 * width + at, a6, b6, factors[6], odd)
            _mix_pair(mixed, to + 7 * width + at, a7, b7, factors[7], odd)


@inlined
def _mix_by_four(weights, row, n_keys, cached, tiles, values_at, width, factors, mixed, to):
    """The same, 16 dimensions and four queries at a time."""
    for at in range(0, width, 16):
        for query in range(0, 8, 4):
            start, there = query * row, to + query * width + at
            for odd in range(2):
                a0 = no_floats()
                a1, a2, a3 = a0, a0, a0
                for first in range(0, n_keys, LANES):
                    n, here = min(LANES, n_keys - first), tiles[first // LANES] + values_at + at
                    for p in range(odd, n, 2):
                        k, i = load_number16(cached, here + p * width), start + first + p
                        a0 = fused(k, item(weights, i), a0)
                        a1 = fused(k, item(weights, i + row), a1)
                        a2 = fused(k, item(weights, i + 2 * row), a2)
                        a3 = fused(k, item(weights, i + 3 * row), a3)
                _mix_once(mixed, there, a0, factors[query], odd)
                _mix_once(mixed, there + width, a1, factors[query + 1], odd)
                _mix_once(mixed, there + 2 * width, a2, factors[query + 2], odd)
                _mix_once(mixed, there + 3 * width, a3, factors[query + 3], odd)


@inlined
def _mix_once(mixed, at, a, factor, odd):
    """Store the sums of even positions, or finish them with the sums of odd positions."""
    store(mixed, at, (load16(mixed, at) + a) * factor if odd else a)


@inlined
def _mix_pair(mixed, at, a, b, factor, odd):
    """Store the sums of even positions, or finish them with the sums of odd positions."""
    if odd:
        a, b = (load16(mixed, at) + a) * factor, (load16(mixed, at + 16) + b) * factor
    store_pair(mixed, at, a, b)


_IS_WIDE = has_wide_registers(cpu_context())
_score_queries, _mix_queries = (_score_eight_queries, _mix_eight) if _IS_WIDE else (_score_by_four, _mix_by_four)


@inlined
def attend_one(q, q_start, head_dim, width, cached, tiles, keys_at, values_at, n_keys, scale, scores, mixed):
    """One query against its first n_keys positions; mixed[:head_dim] is the head's result."""
    n_tiles = (n_keys + LANES - 1) // LANES
    i = 0
    while i + 4 <= n_tiles:
        _score_four_tiles(q, q_start, head_dim, cached, tiles, i, n_tiles, keys_at, scale, scores, i * LANES)
        i += 4
    while i < n_tiles:
        score_tile(q, q_start, head_dim, cached, tiles[i] + keys_at, scale, scores, i * LANES)
        i += 1
    factor = softmax(scores, 0, n_keys, n_tiles)
    mix_one(scores, n_keys, cached, tiles, values_at, width, factor, mixed, 0)


@inlined
def attend_eight(
    q, q_start, stride, head_dim, width, cached, tiles, keys_at, values_at, n_keys, scale, scores, row, factors, mixed
):
    """Eight queries, `stride` apart: the first against n_keys positions, each other one against one position more.

    scores   f32 [8, row], scratch
    factors  f32 [8], scratch
    mixed    f32 [8, width]
    """
    n_tiles = (n_keys + 7 + LANES - 1) // LANES
    for i in range(n_tiles):
        at = tiles[i] + keys_at
        _score_queries(q, q_start, stride, head_dim, cached, at, scale, scores, i * LANES, row)
    for j in range(8):
        factors[j] = softmax(scores, j * row, n_keys + j, n_tiles)
    # Weights after a query's last position are zero, so that all queries can go as far as the longest.
    _mix_queries(scores, row, (n_keys + 8) // 2 * 2, cached, tiles, values_at, width, factors, mixed, 0)
