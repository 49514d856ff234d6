"""Activations as int8: 32 values share a float32 scale.

A record of 32 values is one cache line, 16 words of 32 bits, so that a product reads one stream:

    0..7   32 codes, int8; for products with many tokens uint8, the code plus 128
    8      d, float32: value = d * code
    9      minus the sum of the codes, float32: a small integer, exact
    10 11  minus the sums of codes 0..15 and 16..31; the rest is unused

Products need the sums because weights have offsets and minima.

Where products with many tokens take int16 (kernels/matmul_int16.py), such a record is WIDE_WORDS long: words 2 j and
2 j + 1 hold codes 4 j, 4 j + 2 and codes 4 j + 1, 4 j + 3, and the numbers follow WIDE_FACTORS words later than above.
"""

import numpy as np

from pythia_gguf.kernels.dots import store_wide
from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, i32_at, u8_at
from pythia_gguf.kernels.simd import LANES, absolute, bits, fold_max, fold_sum, high_half, load, low_half, narrow, store

RECORD_WORDS = 16
WIDE_WORDS, WIDE_FACTORS = 32, 8
D, MINUS_SUM, MINUS_LOW, MINUS_HIGH = range(8, 12)
# Records for at least so many tokens have unsigned codes: see kernels/matmul_int8.py.
MANY_TOKENS = 16
ZERO = np.float32(0)
MOST = np.float32(127)
MAGIC = np.float32(12582912.0)  # 1.5 * 2**23: adding it leaves the nearest integer, ties to even
MAGIC_BITS = 0x4B400000


@inlined
def _codes_of(row, i, word):
    """Codes of 32 values from row[i], float32 lanes with MAGIC added; their numbers go to `word`, f32."""
    v = load(row, i)
    largest = fold_max(absolute(v))
    inverse = MOST / largest if largest > ZERO else ZERO
    rounded = v * inverse + MAGIC
    codes = MAGIC - rounded
    low, high = fold_sum(low_half(codes)), fold_sum(high_half(codes))
    word[D] = largest / MOST
    word[MINUS_SUM] = low + high
    word[MINUS_LOW] = low
    word[MINUS_HIGH] = high
    return bits(rounded) - MAGIC_BITS


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
        store(u8_at(at, 32), 0, narrow(_codes_of(row, i, f32_at(at, RECORD_WORDS)) + flip))


@c_kernel(7)
def quantize_activations_wide(x, records, n_columns, first, n, t, n_tokens):
    """The same for products that take int16 with many tokens: i32 [T, n_columns / 32, WIDE_WORDS]."""
    row = f32_at(x, n)
    for i in range(0, n, LANES):
        if n_tokens < MANY_TOKENS:
            at = records + (t * n_columns + first + i) * 2
            store(u8_at(at, 32), 0, narrow(_codes_of(row, i, f32_at(at, RECORD_WORDS))))
            continue
        at = records + (t * n_columns + first + i) * 4
        codes = _codes_of(row, i, f32_at(at + WIDE_FACTORS * 4, RECORD_WORDS))
        store_wide(i32_at(at, 16), 0, codes)
