"""LayerNorm of one row, in one piece or in two."""

import numpy as np

from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.simd import LANES, fold_sum, load, splat, store

ZERO = np.float32(0)
ONE = np.float32(1)


@inlined
def mean_and_scale(x, start, n, eps):
    """The mean of a row, and the root of its variance plus eps; sums by lanes, folded in one fixed order.

    x       f32, n values from start
    Source  Ba et al., arXiv:1607.06450; the variance is the biased one, as in torch.nn.LayerNorm
    """
    whole = n - n % LANES
    lanes = splat(ZERO)
    for i in range(0, whole, LANES):
        lanes = lanes + load(x, start + i)
    total = fold_sum(lanes)
    for i in range(whole, n):
        total += x[start + i]
    mean = total / np.float32(n)
    lanes = splat(ZERO)
    for i in range(0, whole, LANES):
        d = load(x, start + i) - mean
        lanes = lanes + d * d
    total = fold_sum(lanes)
    for i in range(whole, n):
        total += (x[start + i] - mean) * (x[start + i] - mean)
    return mean, np.sqrt(total / np.float32(n) + eps)


@inlined
def normalize_by(x, start, n, mean, scale, weight, bias, out, out_start):
    """One row: (x - mean) / scale * weight + bias.

    x, out        f32, n values from start and out_start; they may be the same
    weight, bias  f32 [n]
    """
    whole, factor = n - n % LANES, ONE / scale
    for i in range(0, whole, LANES):
        store(out, out_start + i, (load(x, start + i) - mean) * factor * load(weight, i) + load(bias, i))
    for i in range(whole, n):
        out[out_start + i] = (x[start + i] - mean) * factor * weight[i] + bias[i]


@inlined
def normalize(x, start, n, weight, bias, eps, out, out_start):
    """One row: (x - mean) / sqrt(variance + eps) * weight + bias; arguments as above."""
    mean, scale = mean_and_scale(x, start, n, eps)
    normalize_by(x, start, n, mean, scale, weight, bias, out, out_start)
