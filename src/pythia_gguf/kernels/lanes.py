"""What all encoders share: weights turned so that a group is a lane, rounding, half precision, packing.

An encoder takes WIDTH groups of n weights; `xt` holds them turned, weight i of every group in xt[i*WIDTH:(i+1)*WIDTH].
Each lane does llama.cpp's float32 operations in llama.cpp's order, so its results are the same bits as those of the C
code built without FMA (llama.cpp 0c1e57098, ggml/src/ggml-quants.c).
"""

import numpy as np

from pythia_gguf.kernels.cpu_features import has_wide_registers
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import cpu_context
from pythia_gguf.kernels.simd import (
    absolute,
    bits,
    from_bits,
    load16,
    select,
    splat16,
    store,
    to_float,
    to_int,
)
from pythia_gguf.kernels.simd import load as load32
from pythia_gguf.kernels.simd import splat as splat32
from pythia_gguf.kernels.transpose import transpose16

# Sixteen AVX2 registers hold what a search needs of 16 groups and not of 32; there are 32 AVX-512 registers, twice as
# large, and there a second one's worth of groups fills the pipeline while the first one's sums wait for each other.
WIDTH = 32 if has_wide_registers(cpu_context()) else 16
load, splat = (load32, splat32) if WIDTH == 32 else (load16, splat16)

ZERO = np.float32(0)
ONE = np.float32(1)
# Groups whose largest magnitude is below this count as all zero (GROUP_MAX_EPS).
EPSILON = np.float32(1e-15)
# Adding 1.5 * 2**23 leaves the nearest integer, ties to even, in the low bits of the sum.
MAGIC = np.float32(12582912.0)
# nearest() equals rounding up to here, and wraps beyond.
ROUNDS_BELOW = np.float32(4194303.0)
INT_LIMIT = np.float32(2147483648.0)
HALF_UNIT = np.float32(2.0**24)
HALF_SMALLEST = np.float32(2.0**-24)


@inlined
def turn_groups(x, start, n, xt):
    """Put WIDTH groups of n weights (a multiple of 16) from x[start:] into xt, one lane a group."""
    for lane in range(0, WIDTH, 16):
        for i in range(0, n, 16):
            transpose16(x, start + lane * n + i, n, xt, i * WIDTH + lane, WIDTH)


@inlined
def turn_back(turned, n, out, at, stride):
    """Put n bytes of each of WIDTH groups, turned as xt is, side by side: group k's from out[at + k * stride]."""
    for lane in range(0, WIDTH, 16):
        for i in range(0, n, 16):
            transpose16(turned, i * WIDTH + lane, WIDTH, out, at + lane * stride + i, stride)


@inlined
def put_bytes(out, at, word, n):
    """The lowest n bytes of an integer, the lowest one first."""
    for i in range(n):
        out[at + i] = (word >> (8 * i)) & 255


@inlined
def nearest(v):
    """llama.cpp's nearest_int, bit for bit: the nearest integer, ties to even; 0 for NaN, wrapped beyond 2**22."""
    return (bits(v + MAGIC) & 0x007FFFFF) - 0x00400000


@inlined
def clamp(i, low, high):
    """Lanes limited to low..high, of either kind."""
    i = select(i < low, low, i)
    return select(i > high, high, i)


@inlined
def representable(v):
    """v, or 0 where no int32 can hold it: x86 converts such values and NaN to 0x80000000, and C keeps the low byte."""
    return select(absolute(v) < INT_LIMIT, v, ZERO)


@inlined
def truncate(v):
    """C's conversion of float to an 8-bit integer as x86 does it: toward zero, 0 for what is not representable."""
    return to_int(representable(v))


@inlined
def to_half(v):
    """float32 lanes -> IEEE float16 bit patterns in integer lanes, nearest even, overflow to infinity."""
    u = bits(v)
    sign = (u >> 16) & 0x8000
    a = u & 0x7FFFFFFF
    normal = ((a + 0xFFF + ((a >> 13) & 1)) - 0x38000000) >> 13
    small = bits(from_bits(a) * HALF_UNIT + MAGIC) - 0x4B400000
    h = select(a < 0x38800000, small, normal)
    return sign | select(a >= 0x47800000, 0x7C00, h)


@inlined
def from_half(h):
    """float16 bit patterns of finite values in integer lanes -> float32 lanes, exact."""
    a = h & 0x7FFF
    normal = from_bits((a << 13) + 0x38000000)
    v = select(a < 0x0400, to_float(a) * HALF_SMALLEST, normal)
    return from_bits(bits(v) | ((h & 0x8000) << 16))


@inlined
def reciprocal(d):
    """1/d, and 0 where d is 0."""
    return select(d == ZERO, ZERO, ONE / d)


@inlined
def signed_abs_max(xt, n):
    """Per lane the largest magnitude and the first weight that has it, sign kept."""
    amax = splat(ZERO)
    largest = splat(ZERO)
    for i in range(n):
        v = load(xt, i * WIDTH)
        a = absolute(v)
        up = a > amax
        amax = select(up, a, amax)
        largest = select(up, v, largest)
    return amax, largest


@inlined
def min_max(xt, n):
    """Per lane the smallest and the largest weight; of equal ones the first, as C's scan with strict comparisons."""
    low = load(xt, 0)
    high = low
    for i in range(1, n):
        v = load(xt, i * WIDTH)
        low = select(v < low, v, low)
        high = select(v > high, v, high)
    return low, high


@inlined
def block_max(values, per_block, largest):
    """In every lane the largest value above 0 among the lanes of its block of `per_block`, else 0."""
    for first in range(0, WIDTH, per_block):
        m = ZERO
        for j in range(first, first + per_block):
            m = max(m, values[j])
        for j in range(first, first + per_block):
            largest[j] = m


@inlined
def block_signed_abs_max(values, per_block, largest):
    """In every lane the first value of largest magnitude among the lanes of its block, sign kept."""
    for first in range(0, WIDTH, per_block):
        m = ZERO
        for j in range(first, first + per_block):
            if abs(values[j]) > abs(m):
                m = values[j]
        for j in range(first, first + per_block):
            largest[j] = m


@inlined
def pack_pairs(codes, c, out, at):
    """64 bytes from the low 2 bits of 256 codes: of each 128, four runs of 32 in bits 0-1, 2-3, 4-5, 6-7."""
    for half in range(2):
        s = c + 128 * half
        low = (load32(codes, s) & 3) | ((load32(codes, s + 32) & 3) << 2)
        high = ((load32(codes, s + 64) & 3) << 4) | (load32(codes, s + 96) << 6)
        store(out, at + 32 * half, low | high)


@inlined
def pack_bits(codes, c, bit, out, at):
    """32 bytes from one bit of 256 codes: bit k of byte i comes from code 32k + i."""
    packed = (load32(codes, c) >> bit) & 1
    for k in range(1, 8):
        packed = packed | (((load32(codes, c + 32 * k) >> bit) & 1) << k)
    store(out, at, packed)


@inlined
def pack_nibbles(codes, c, out, at):
    """32 bytes from 64 codes of 4 bits: the first 32 in low nibbles, the next 32 in high ones."""
    store(out, at, (load32(codes, c) & 15) | (load32(codes, c + 32) << 4))


@inlined
def pack_halves(codes, c, out, at):
    """16 bytes from 32 codes of 4 bits: the first 16 in low nibbles, the next 16 in high ones."""
    store(out, at, (load16(codes, c) & 15) | (load16(codes, c + 16) << 4))
