"""Activations as int8: 32 values share a float32 scale.

Knows no weights. A record of 32 values is one cache line, 16 words of 32 bits, so that a product reads one stream:

    0..7   32 codes, int8              8   d, float32: value = d * code
    9      sum of the codes            10  -d * that sum
    11 12  sums of codes 0..15, 16..31    13 14  -d * those        (9..14 float32: small integers, exact; 15 unused)

The sums are there because weights are stored with offsets and minima.
"""

import numpy as np

from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, i8_at, u8_at
from pythia_gguf.kernels.simd import LANES, absolute, bits, fold_max, load, narrow, store

RECORD_WORDS = 16
D, SUM, MINUS_SUM, SUM_LOW, SUM_HIGH, MINUS_LOW, MINUS_HIGH = range(8, 15)
ZERO = np.float32(0)
MOST = np.float32(127)
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the nearest integer, ties to even
MAGIC_BITS = 0x4B400000


@inlined
def _sum(codes, first):
    """Sum of 16 codes."""
    total = 0
    for j in range(first, first + 16):
        total += codes[j]
    return np.float32(total)


@c_kernel(5)
def quantize_activations(x, records, n_columns, first, last):
    """Rows first .. last - 1: code = round(x / d), d = largest |x| of 32 / 127.

    x        f32 [T, n_columns], n_columns a multiple of 32
    records  i32 [T, n_columns / 32, RECORD_WORDS]
    """
    for t in range(first, last):
        row = f32_at(x + t * n_columns * 4, n_columns)
        for i in range(0, n_columns, LANES):
            at = records + (t * n_columns + i) * 2
            word = f32_at(at, RECORD_WORDS)
            codes = i8_at(at, 32)
            v = load(row, i)
            largest = fold_max(absolute(v))
            d = largest / MOST
            inverse = MOST / largest if largest > ZERO else ZERO
            store(u8_at(at, 32), 0, narrow(bits(v * inverse + MAGIC) - MAGIC_BITS))
            low, high = _sum(codes, 0), _sum(codes, 16)
            word[D] = d
            word[SUM] = low + high
            word[MINUS_SUM] = -(d * (low + high))
            word[SUM_LOW] = low
            word[SUM_HIGH] = high
            word[MINUS_LOW] = -(d * low)
            word[MINUS_HIGH] = -(d * high)
