"""Activations as int8: 32 values share a float32 scale.

A record of 32 values is one cache line, 16 words of 32 bits, so that a product reads one stream:

    0..7   32 codes, int8; for products with many tokens uint8, the code plus 128
    8      d, float32: value = d * code
    9      minus the sum of the codes, float32: a small integer, exact
    10 11  minus the sums of codes 0..15 and 16..31; the rest is unused

Products need the sums because weights have offsets and minima.
"""

import numpy as np

from pythia_gguf.kernels.jit import c_kernel
from pythia_gguf.kernels.memory import f32_at, u8_at
from pythia_gguf.kernels.simd import LANES, absolute, bits, fold_max, fold_sum, high_half, load, low_half, narrow, store

RECORD_WORDS = 16
D, MINUS_SUM, MINUS_LOW, MINUS_HIGH = range(8, 12)
# Records for at least so many tokens have unsigned codes: see kernels/matmul_int8.py.
MANY_TOKENS = 16
ZERO = np.float32(0)
MOST = np.float32(127)
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the nearest integer, ties to even
MAGIC_BITS = 0x4B400000


@c_kernel(7)
def quantize_activations(x, records, n_columns, first, n, t, n_tokens):
    """Quantize columns first .. first + n - 1 of row t: code = round(x / d), d = (largest |x| of 32) / 127.

    x         f32 [n], the values; first, n and n_columns are multiples of 32
    records   i32 [T, n_columns / 32, RECORD_WORDS]
    n_tokens  number of rows in the product
    """
    flip = 128 if n_tokens >= MANY_TOKENS else 0
    row = f32_at(x, n)
    for i in range(0, n, LANES):
        at = records + (t * n_columns + first + i) * 2
        word = f32_at(at, RECORD_WORDS)
        v = load(row, i)
        largest = fold_max(absolute(v))
        d = largest / MOST
        inverse = MOST / largest if largest > ZERO else ZERO
        rounded = v * inverse + MAGIC
        store(u8_at(at, 32), 0, narrow((bits(rounded) - MAGIC_BITS) + flip))
        codes = MAGIC - rounded
        low, high = fold_sum(low_half(codes)), fold_sum(high_half(codes))
        word[D] = d
        word[MINUS_SUM] = low + high
        word[MINUS_LOW] = low
        word[MINUS_HIGH] = high
