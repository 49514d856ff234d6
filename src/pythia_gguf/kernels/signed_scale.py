"""Search for one scale per group, of either sign, shared by Q6_K and, with an importance matrix, Q3_K, Q4_0 and Q5_0.

The search tries 19 inverse scales around -top / largest weight; each gives levels, and the least-squares scale for
them; the one that explains most of the weights wins (make_qx_quants of llama.cpp 0c1e57098, ggml/src/ggml-quants.c,
with rmse_type 1). What is searched may also be the scales of a block's groups.
"""

import numpy as np

from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    EPSILON,
    MAGIC,
    ONE,
    WIDTH,
    ZERO,
    clamp,
    load,
    nearest,
    signed_abs_max,
    splat,
    turn_groups,
)
from pythia_gguf.kernels.simd import select, store


@inlined
def turn_importance(importance, start, xt, n, w):
    """How much each weight's error counts, one lane a group: its importance from importance[start:], else its square.

    importance  f32 [weights], or [0]: none
    xt, w       f32 [n, WIDTH]          weights; result
    """
    if importance.size:
        turn_groups(importance, start, n, w)
    else:
        for i in range(n):
            x = load(xt, i * WIDTH)
            store(w, i * WIDTH, x * x)


@inlined
def level_sums(xt, w, n, inverse, top):
    """Per lane the sums of w*x*l and w*l*l for levels l = clamp(nearest(inverse * x), -top, top - 1), in order."""
    sum_lx = splat(ZERO)
    sum_l2 = splat(ZERO)
    for i in range(n):
        x = load(xt, i * WIDTH)
        level = clamp((inverse * x + MAGIC) - MAGIC, -top, top - ONE)
        wi = load(w, i * WIDTH)
        sum_lx = sum_lx + (wi * x) * level
        sum_l2 = sum_l2 + (wi * level) * level
    return sum_lx, sum_l2


@inlined
def fit_signed_scale(xt, w, n, top):
    """Scale of WIDTH groups of n weights.

    xt, w    f32 [n, WIDTH]  weights of the model, and how much each one's error counts
    top      f32             levels are -top .. top - 1
    Returns the scale, the inverse scale that gave the levels, and a mask of groups that count as all zero.
    """
    amax, largest = signed_abs_max(xt, n)
    inverse = -top / largest
    sum_lx, sum_l2 = level_sums(xt, w, n, inverse, top)
    scale = select(sum_l2 == ZERO, ZERO, sum_lx / sum_l2)
    best = scale * sum_lx
    for step in range(-9, 10):
        if step != 0:
            candidate = -(top + np.float32(0.1) * np.float32(step)) / largest
            sum_lx, sum_l2 = level_sums(xt, w, n, candidate, top)
            better = (sum_l2 > ZERO) & (sum_lx * sum_lx > best * sum_l2)
            scale = select(better, sum_lx / sum_l2, scale)
            best = select(better, scale * sum_lx, best)
            inverse = select(better, candidate, inverse)
    dead = amax < EPSILON
    return select(dead, ZERO, scale), inverse, dead


@inlined
def searched_code(inverse, x, dead, top):
    """The level of the search, counted from 0; 0 in a group that counts as all zero."""
    return select(dead, 0, clamp(nearest(inverse * x), -np.int32(top), np.int32(top) - 1) + np.int32(top))
