"""Search for a scale and a minimum per group, shared by Q2_K, Q4_K and Q5_K (make_qkx2_quants).

The search tries n_steps + 1 inverse scales around top / (max - min); each gives codes, and the least-squares scale and
minimum for those codes; the candidate of least weighted error wins. The trap is that the minimum of an accepted
candidate moves the range of all later ones.

Codes are not kept during the search: the winner's inverse scale and minimum determine them, and they are needed only
for a group whose stored scale becomes zero.
"""

import numpy as np

from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.lanes import (
    MAGIC,
    ONE,
    ROUNDS_BELOW,
    WIDTH,
    ZERO,
    clamp,
    load,
    nearest,
    splat,
)
from pythia_gguf.kernels.simd import absolute, all_lanes, any_lane, narrow, select, store, to_float


@inlined
def rounds(inverse, low, high, minimum):
    """Whether every inverse * (x - minimum), low <= x <= high, is small enough for fast rounding, in all lanes."""
    first = absolute(inverse * (low - minimum))
    last = absolute(inverse * (high - minimum))
    return all_lanes((first < ROUNDS_BELOW) & (last < ROUNDS_BELOW))


@inlined
def fast_code(inverse, x, minimum, top):
    """clamp(nearest(inverse * (x - minimum)), 0, top) as float lanes, where `rounds` holds."""
    return clamp((inverse * (x - minimum) + MAGIC) - MAGIC, ZERO, top)


@inlined
def exact_code(inverse, x, minimum, top):
    """The same for any value: nearest() wraps as llama.cpp's does."""
    return to_float(clamp(nearest(inverse * (x - minimum)), 0, np.int32(top)))


@inlined
def weighted_error(xt, w, codes, n, scale, minimum, use_abs):
    """Per lane sum of w * e, e = |scale * code + minimum - x| or its square, in order."""
    error = splat(ZERO)
    for i in range(n):
        d = scale * load(codes, i * WIDTH) + minimum - load(xt, i * WIDTH)
        error = error + load(w, i * WIDTH) * (absolute(d) if use_abs else d * d)
    return error


@inlined
def fit_scale_min(xt, w, codes, n, top, r_min, r_delta, n_steps, use_abs):
    """Scale and minimum of WIDTH groups of n weights.

    xt, w    f32 [n, WIDTH]  weights of the model, and how much each one's error counts
    codes    f32 [n, WIDTH]  scratch
    top      f32             largest code
    r_min, r_delta  f32      candidates are (r_min + r_delta * step + top) / (max - minimum)
    use_abs  bool            error is |e| instead of e squared
    Returns scale, minimum (never above 0), and the inverse scale and minimum that gave the codes; scale 0 for groups
    whose weights are all equal and not above 0.
    """
    low = load(xt, 0)
    high = low
    sum_w = load(w, 0)
    sum_x = sum_w * low
    for i in range(1, n):
        x = load(xt, i * WIDTH)
        wi = load(w, i * WIDTH)
        low = select(x < low, x, low)
        high = select(x > high, x, high)
        sum_w = sum_w + wi
        sum_x = sum_x + wi * x
    low = select(low > ZERO, ZERO, low)
    flat = high == low

    minimum = low
    inverse = top / select(flat, ONE, high - minimum)
    scale = ONE / inverse
    for i in range(n):
        store(codes, i * WIDTH, fast_code(inverse, load(xt, i * WIDTH), minimum, top))
    best = weighted_error(xt, w, codes, n, scale, minimum, use_abs)
    won_inverse = inverse
    won_minimum = minimum
    for step in range(n_steps + 1):
        inverse = ((r_min + r_delta * np.float32(step)) + top) / select(flat, ONE, high - minimum)
        sum_l, sum_l2, sum_xl = candidate_sums(xt, w, codes, n, inverse, low, high, minimum, top)
        det = sum_w * sum_l2 - sum_l * sum_l
        try_scale = (sum_w * sum_xl - sum_x * sum_l) / det
        try_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / det
        above = try_minimum > ZERO
        try_scale = select(above, sum_xl / sum_l2, try_scale)
        try_minimum = select(above, ZERO, try_minimum)
        error = weighted_error(xt, w, codes, n, try_scale, try_minimum, use_abs)
        better = (det > ZERO) & (error < best)
        best = select(better, error, best)
        scale = select(better, try_scale, scale)
        won_inverse = select(better, inverse, won_inverse)
        won_minimum = select(better, minimum, won_minimum)
        minimum = select(better, try_minimum, minimum)
    return select(flat, ZERO, scale), minimum, won_inverse, won_minimum


@inlined
def candidate_sums(xt, w, codes, n, inverse, low, high, minimum, top):
    """Codes of one candidate into `codes`; per lane the sums of w*l, w*l*l and w*l*x, in order."""
    sum_l = splat(ZERO)
    sum_l2 = splat(ZERO)
    sum_xl = splat(ZERO)
    if rounds(inverse, low, high, minimum):
        for i in range(n):
            x = load(xt, i * WIDTH)
            code = fast_code(inverse, x, minimum, top)
            store(codes, i * WIDTH, code)
            wl = load(w, i * WIDTH) * code
            sum_l = sum_l + wl
            sum_l2 = sum_l2 + wl * code
            sum_xl = sum_xl + wl * x
    else:
        for i in range(n):
            x = load(xt, i * WIDTH)
            code = exact_code(inverse, x, minimum, top)
            store(codes, i * WIDTH, code)
            wl = load(w, i * WIDTH) * code
            sum_l = sum_l + wl
            sum_l2 = sum_l2 + wl * code
            sum_xl = sum_xl + wl * x
    return sum_l, sum_l2, sum_xl


@inlined
def requantize(xt, n, top, scale, offset, inverse, minimum, turned):
    """Final codes with the stored scale and minimum: clamp(nearest((x + offset) / scale), 0, top), as bytes.

    A group whose stored scale is 0 keeps the codes of the search, which `inverse` and `minimum` give again.
    """
    for i in range(n):
        q = clamp(nearest((load(xt, i * WIDTH) + offset) / scale), 0, top)
        store(turned, i * WIDTH, narrow(q))
    kept = scale == ZERO
    if any_lane(kept):
        for i in range(n):
            x = load(xt, i * WIDTH)
            searched = clamp(nearest(inverse * (x - minimum)), 0, top)
            q = clamp(nearest((x + offset) / scale), 0, top)
            store(turned, i * WIDTH, narrow(select(kept, searched, q)))
