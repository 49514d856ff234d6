"""What encoders with an importance matrix share: how much a weight's error counts, and scales of whole blocks.

With an importance matrix llama.cpp searches longer, and quantizes the scales of a block's groups by a search of their
own, in which a group counts as much as its weights together. There a lane is a block, so a chunk of these encoders is
WIDTH blocks. Algorithms of llama.cpp 0c1e57098, ggml/src/ggml-quants.c, the functions `quantize_row_*_impl` and
`make_qp_quants`.
"""

import numpy as np

from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.lanes import (
    EPSILON,
    ONE,
    WIDTH,
    ZERO,
    load,
    nearest,
    splat,
    to_half,
    turn_groups,
)
from pythia_gguf.kernels.memory import f32_at, scratch_f32
from pythia_gguf.kernels.scale_min import fit_scale_min
from pythia_gguf.kernels.simd import select, store, to_float
from pythia_gguf.kernels.transpose import transpose16

BLOCK = 256
WEIGHTED_CHUNK = WIDTH * BLOCK
SWEEPS = 5


@c_kernel(7)
def weigh_errors(weights, n, importances, n_columns, run, factor, counts):
    """How much each weight's error counts: importance of its column * sqrt(factor * mean square of its run + x * x).

    weights      f32 [n]          by its address; rows of n_columns weights; n a multiple of run
    importances  f32 [n_columns]  by its address; n_columns a multiple of run
    run          weights that share a mean square, a multiple of 16
    factor       a whole number
    counts       f32 [n]          by its address; result
    """
    x, importance, out = f32_at(weights, n), f32_at(importances, n_columns), f32_at(counts, n)
    n_runs = n // run
    sums = scratch_f32(WIDTH)
    tile = scratch_f32(16 * WIDTH)
    for first in range(0, n_runs, WIDTH):
        n = min(WIDTH, n_runs - first)
        if n == WIDTH:
            total = splat(ZERO)
            for i in range(0, run, 16):
                for lane in range(0, WIDTH, 16):
                    transpose16(x, (first + lane) * run + i, run, tile, lane, WIDTH)
                for j in range(16):
                    v = load(tile, j * WIDTH)
                    total = total + v * v
            store(sums, 0, total)
        else:
            for k in range(n):
                s = ZERO
                for i in range((first + k) * run, (first + k + 1) * run):
                    s += x[i] * x[i]
                sums[k] = s
        for k in range(n):
            at = (first + k) * run
            column = at % n_columns
            mean = (np.float32(factor) * sums[k]) / np.float32(run)
            for i in range(run):
                v = x[at + i]
                out[at + i] = importance[column + i] * np.sqrt(mean + v * v)


@inlined
def lane_sums(w, n):
    """Per lane the sum of n values, in order."""
    total = splat(ZERO)
    for i in range(n):
        total = total + load(w, i * WIDTH)
    return total


@inlined
def turn_values(values, n, turned):
    """Values of WIDTH blocks' groups, n to a block: one block after the other -> one lane a block."""
    for b in range(WIDTH):
        for i in range(n):
            turned[i * WIDTH + b] = values[b * n + i]


@inlined
def spread(turned, n, values):
    """The reverse."""
    for b in range(WIDTH):
        for i in range(n):
            values[b * n + i] = turned[i * WIDTH + b]


@inlined
def spread_one(per_block, n, values):
    """One value of each of WIDTH blocks to all of its n groups."""
    for b in range(WIDTH):
        for i in range(n):
            values[b * n + i] = per_block[b]


@inlined
def fit_unit(xt, w, n, top, codes):
    """Unit of WIDTH blocks in which their groups' values, none below 0 but by accident, become codes up to `top`.

    xt, w    f32 [n, WIDTH]  values, and how much each one's error counts
    top      f32             largest code
    codes    i32 [n, WIDTH]  result, as unsigned bytes
    Returns the unit, 0 for blocks without a value above 0.
    """
    largest = splat(ZERO)
    for i in range(n):
        x = load(xt, i * WIDTH)
        largest = select(largest > x, largest, x)
    inverse = top / largest
    scale = ONE / inverse
    best = splat(ZERO)
    for i in range(n):
        x = load(xt, i * WIDTH)
        d = x - scale * to_float(nearest(inverse * x) & 255)
        best = best + (load(w, i * WIDTH) * d) * d
    for step in range(-4, 5):
        if step != 0:
            candidate = (np.float32(0.1) * np.float32(step) + top) / largest
            scale = ONE / candidate
            error = splat(ZERO)
            for i in range(n):
                x = load(xt, i * WIDTH)
                d = x - scale * to_float(at_most(nearest(candidate * x), top))
                error = error + (load(w, i * WIDTH) * d) * d
            better = error < best
            best = select(better, error, best)
            inverse = select(better, candidate, inverse)
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(n):
        x, wi = load(xt, i * WIDTH), load(w, i * WIDTH)
        q = at_most(nearest(inverse * x), top)
        code = to_float(q)
        store(codes, i * WIDTH, q & 255)
        sum_lx = sum_lx + (wi * x) * code
        sum_l2 = sum_l2 + (wi * code) * code
    for _ in range(SWEEPS):
        for i in range(n):
            sum_lx, sum_l2 = move_code(xt, w, i, top, codes, sum_lx, sum_l2)
    dead = largest < EPSILON
    for i in range(n):
        store(codes, i * WIDTH, select(dead, 0, load(codes, i * WIDTH)))
    return select(dead, ZERO, select(sum_l2 > ZERO, sum_lx / sum_l2, ZERO))


@inlined
def at_most(q, top):
    """Integer lanes, limited from above."""
    return select(q > np.int32(top), np.int32(top), q)


@inlined
def move_code(xt, w, i, top, codes, sum_lx, sum_l2):
    """Move code i to where the unit without it would put it, in the lanes where that explains more; the sums after."""
    x, wi = load(xt, i * WIDTH), load(w, i * WIDTH)
    code = to_float(load(codes, i * WIDTH))
    lx = sum_lx - (wi * x) * code
    l2 = sum_l2 - (wi * code) * code
    q = at_most(nearest((x * l2) / lx), top)
    better = to_float(q)
    try_lx = lx + (wi * x) * better
    try_l2 = l2 + (wi * better) * better
    move = (lx > ZERO) & (l2 > ZERO) & (better != code)
    move = move & ((try_lx * try_lx) * sum_l2 > (sum_lx * sum_lx) * try_l2)
    store(codes, i * WIDTH, select(move, q & 255, load(codes, i * WIDTH)))
    return select(move, try_lx, sum_lx), select(move, try_l2, sum_l2)


@inlined
def search_scales(x, w, start, n, top, scales, minima, sums, inverses, searched, room):
    """Scales and minima of all groups of one chunk, by make_qkx3_quants.

    x, w      f32              weights from `start` on, and how much each one's error counts
    n, top                     weights of a group, largest code
    scales, minima             f32 [groups of WIDTH blocks], minima with their sign turned
    sums                       what a group counts
    inverses, searched         inverse scale and minimum that gave the codes
    room      f32 [3 n WIDTH]  scratch
    """
    xt, wt, steps = room[: n * WIDTH], room[n * WIDTH : 2 * n * WIDTH], room[2 * n * WIDTH :]
    for g in range(0, WIDTH * (BLOCK // n), WIDTH):
        turn_groups(x, start + g * n, n, xt)
        turn_groups(w, start + g * n, n, wt)
        scale, minimum, inverse, won_minimum = fit_scale_min(
            xt, wt, steps, n, np.float32(top), np.float32(-0.9), np.float32(0.05), 36, False
        )
        store(scales, g, scale)
        store(minima, g, ZERO - minimum)
        store(sums, g, lane_sums(wt, n))
        store(inverses, g, inverse)
        store(searched, g, won_minimum)


@inlined
def quantize_values(values, sums, n, top, codes, d, turned, turned_codes):
    """Values of all groups of a chunk to codes, n to a block.

    values, sums  f32 [groups]     the values, and what each group counts
    codes, d      i32 [groups]     results: codes, and the float16 bits of their block's unit
    turned        f32 [2 n WIDTH]  scratch
    turned_codes  i32 [n WIDTH]    scratch
    """
    xt, wt = turned[: n * WIDTH], turned[n * WIDTH :]
    turn_values(values, n, xt)
    turn_values(sums, n, wt)
    unit = fit_unit(xt, wt, n, np.float32(top), turned_codes)
    spread(turned_codes, n, codes)
    store(turned_codes, 0, to_half(unit))
    spread_one(turned_codes, n, d)
