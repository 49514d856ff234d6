"""Activations as int8: 32 values share a float32 scale.

Knows no weights. The sums of the codes go with them, because weights are stored with offsets and minima.
"""

import numpy as np

from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, i8_at, i32_at, u8_at
from pythia_gguf.kernels.simd import LANES, absolute, bits, fold_max, load, narrow, store

ZERO = np.float32(0)
MOST = np.float32(127)
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the nearest integer, ties to even
MAGIC_BITS = 0x4B400000


@inlined
def _quantize_row(x, codes, scales, sums, n_columns):
    for i in range(0, n_columns, LANES):
        v = load(x, i)
        largest = fold_max(absolute(v))
        scales[i // LANES] = largest / MOST
        inverse = MOST / largest if largest > ZERO else ZERO
        store(codes, i, narrow(bits(v * inverse + MAGIC) - MAGIC_BITS))


@inlined
def _sum_row(codes, sums, n_columns):
    for i in range(0, n_columns, 16):
        total = 0
        for j in range(i, i + 16):
            total += codes[j]
        sums[i // 16] = total


@c_kernel(7)
def quantize_activations(x, q, d, sums, n_columns, first, last):
    """Rows first .. last - 1: q = round(x / d), d = largest |x| of 32 / 127.

    x     f32 [T, n_columns], n_columns a multiple of 32
    q     i8 [T, n_columns]
    d     f32 [T, n_columns / 32]
    sums  i32 [T, n_columns / 16]
    """
    for t in range(first, last):
        row = f32_at(x + t * n_columns * 4, n_columns)
        scales = f32_at(d + t * (n_columns // 32) * 4, n_columns // 32)
        found = i32_at(sums + t * (n_columns // 16) * 4, n_columns // 16)
        _quantize_row(row, u8_at(q + t * n_columns, n_columns), scales, found, n_columns)
        _sum_row(i8_at(q + t * n_columns, n_columns), found, n_columns)
