"""Causal attention of one head over cached keys and values, with rotary positions.

Knows no layers. Keys lie in tiles of LANES positions, turned, so that a tile's scores are lanes; values lie as rows.
Sums run over absolute positions in one order, whatever else is computed with them: the same bits for every slice.

    keys    [tile][d][LANES], float16 bit patterns or float32: position p in tile p // LANES, lane p % LANES
    values  [position][width], width = the head's dimensions, rounded up to LANES
"""

import numpy as np

from pythia_gguf.kernels.curves import exponential
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import to_half
from pythia_gguf.kernels.simd import LANES, fold_max, fold_sum, load, load_number, select, splat, store

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
def score(q, q_start, head_dim, keys, n_keys, scale, scores):
    """scores[p] = scale q . key p for p < n_keys, and the largest of them; up to the end of the tile it is MINUS."""
    n_tiles = (n_keys + LANES - 1) // LANES
    most = splat(MINUS)
    tile = 0
    while tile < n_tiles:
        if tile + 4 <= n_tiles:  # four sums side by side hide the latency; each runs over d in the same order
            at = tile * head_dim * LANES
            step = head_dim * LANES
            a = splat(ZERO)
            b, c, d = a, a, a
            for i in range(head_dim):
                w = splat(q[q_start + i])
                a = a + w * load_number(keys, at + i * LANES)
                b = b + w * load_number(keys, at + step + i * LANES)
                c = c + w * load_number(keys, at + 2 * step + i * LANES)
                d = d + w * load_number(keys, at + 3 * step + i * LANES)
            store(scores, tile * LANES, a * scale)
            store(scores, (tile + 1) * LANES, b * scale)
            store(scores, (tile + 2) * LANES, c * scale)
            store(scores, (tile + 3) * LANES, d * scale)
            tile += 4
        else:
            a = splat(ZERO)
            for i in range(head_dim):
                a = a + splat(q[q_start + i]) * load_number(keys, (tile * head_dim + i) * LANES)
            store(scores, tile * LANES, a * scale)
            tile += 1
    last = (n_tiles - 1) * LANES
    store(scores, last, select(load(LANE, 0) < np.float32(n_keys - last), load(scores, last), MINUS))
    for tile in range(n_tiles):
        v = load(scores, tile * LANES)
        most = select(v > most, v, most)
    return fold_max(most)


@inlined
def softmax(scores, n_keys, largest):
    """scores become e**(score - largest); returns 1 / their sum."""
    total = splat(ZERO)
    for at in range(0, n_keys, LANES):
        e = exponential(load(scores, at) - largest)
        store(scores, at, e)
        total = total + e
    return ONE / fold_sum(total)


@inlined
def mix_values(weights, n_keys, values, width, factor, mixed):
    """mixed[d] = factor * sum over p of weights[p] values[p, d]; four sums, by p modulo 4, then added in pairs."""
    whole = n_keys - n_keys % 4
    for at in range(0, width, LANES):
        a = splat(ZERO)
        b, c, d = a, a, a
        for p in range(0, whole, 4):
            a = a + splat(weights[p]) * load_number(values, p * width + at)
            b = b + splat(weights[p + 1]) * load_number(values, (p + 1) * width + at)
            c = c + splat(weights[p + 2]) * load_number(values, (p + 2) * width + at)
            d = d + splat(weights[p + 3]) * load_number(values, (p + 3) * width + at)
        if whole < n_keys:
            a = a + splat(weights[whole]) * load_number(values, whole * width + at)
        if whole + 1 < n_keys:
            b = b + splat(weights[whole + 1]) * load_number(values, (whole + 1) * width + at)
        if whole + 2 < n_keys:
            c = c + splat(weights[whole + 2]) * load_number(values, (whole + 2) * width + at)
        store(mixed, at, ((a + b) + (c + d)) * factor)


@inlined
def attend(q, q_start, head_dim, width, keys, values, n_keys, scale, scores, mixed):
    """One query against its first n_keys positions; mixed[:head_dim] is what the head gives."""
    largest = score(q, q_start, head_dim, keys, n_keys, scale, scores)
    mix_values(scores, n_keys, values, width, softmax(scores, n_keys, largest), mixed)
