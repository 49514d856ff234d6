"""Kernels of kernels/widen.py: values of formats without blocks become float32.

Each takes three addresses and a number of values, a multiple of LANES. It also gives the largest bit pattern without
sign: magnitudes are ordered as their bits are, infinity and NaN on top.
"""

from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.lanes import ZERO, from_half
from pythia_gguf.kernels.memory import f32_at, i32_at, i64_at, scratch_i32, u16_at
from pythia_gguf.kernels.simd import LANES, bits, from_bits, load, select, splat, store, widen


@inlined
def larger(a, b):
    """The larger of two integers, lane by lane."""
    return select(a > b, a, b)


@inlined
def largest_lane(v):
    """The largest of all lanes, at least 0."""
    lanes = scratch_i32(LANES)
    store(lanes, 0, v)
    top = 0
    for i in range(LANES):
        top = max(top, lanes[i])
    return top


@c_kernel(4)
def widen_f16(stored, n, widened, largest):
    """IEEE float16 to float32.

    stored   u16 [n]
    widened  f32 [n]
    largest  i64 [1]
    """
    values, out = u16_at(stored, n), f32_at(widened, n)
    top = bits(splat(ZERO))
    for i in range(0, n, LANES):
        h = widen(load(values, i))
        top = larger(h & 0x7FFF, top)
        store(out, i, from_half(h))
    i64_at(largest, 1)[0] = largest_lane(top)


@c_kernel(4)
def widen_bf16(stored, n, widened, largest):
    """bfloat16 to float32: it is the upper half of one.

    stored   u16 [n]
    widened  f32 [n]
    largest  i64 [1]
    """
    values, out = u16_at(stored, n), f32_at(widened, n)
    top = bits(splat(ZERO))
    for i in range(0, n, LANES):
        h = widen(load(values, i))
        top = larger(h & 0x7FFF, top)
        store(out, i, from_bits(h << 16))
    i64_at(largest, 1)[0] = largest_lane(top)


@c_kernel(4)
def copy_f32(stored, n, widened, largest):
    """float32 as it is.

    stored   i32 [n]
    widened  f32 [n]
    largest  i64 [1]
    """
    values, out = i32_at(stored, n), f32_at(widened, n)
    top = bits(splat(ZERO))
    for i in range(0, n, LANES):
        u = load(values, i)
        top = larger(u & 0x7FFFFFFF, top)
        store(out, i, from_bits(u))
    i64_at(largest, 1)[0] = largest_lane(top)
