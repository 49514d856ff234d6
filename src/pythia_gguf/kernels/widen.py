"""Stored weights to float32 on the way into the encoders, and the largest magnitude among them.

Half precision is taken apart with integers, so it gives the same bits where the processor has no instruction for it.
"""

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.jit import inlined, kernel
from pythia_gguf.kernels.lanes import ZERO, from_half
from pythia_gguf.kernels.simd import LANES, bits, from_bits, load, select, splat, store
from pythia_gguf.kernels.simd import widen as widened


def widen(stored: str, raw: np.ndarray, out: np.ndarray) -> float:
    """Decode values of a format without blocks; exact.

    stored  F16, BF16 or F32
    raw     u8 [n * bytes of one value]  as in the file, little-endian
    out     f32 [n]
    Returns the largest magnitude: infinity or NaN when a value is not finite; that value has no meaning in `out`.
    Raises  ValueError when the buffers do not fit.
    """
    is_flat = raw.ndim == out.ndim == 1 and raw.flags.c_contiguous and out.flags.c_contiguous
    if raw.dtype != np.uint8 or out.dtype != np.float32 or not is_flat:
        got = f"{raw.dtype} {raw.shape} and {out.dtype} {out.shape}"
        raise ValueError(f"expected contiguous uint8 and float32 of one axis, got {got}")
    if raw.size != FORMATS[stored].row_bytes(out.size):
        raise ValueError(f"{raw.size} bytes do not hold {out.size} values of {stored}")
    values = raw.view(np.int32 if stored == "F32" else np.uint16)
    whole = out.size // LANES * LANES
    largest = _RUN[stored](values[:whole], out[:whole])
    if whole < out.size:
        rest, rest_out = np.zeros(LANES, values.dtype), np.empty(LANES, np.float32)
        rest[: out.size - whole] = values[whole:]
        largest = max(largest, _RUN[stored](rest, rest_out))
        out[whole:] = rest_out[: out.size - whole]
    return float(FORMATS[stored].decode(np.array([largest], values.dtype))[0])


@inlined
def larger(a, b):
    """The larger of two integers, lane by lane."""
    return select(a > b, a, b)


@inlined
def largest_lane(v):
    """The largest of all lanes, at least 0."""
    lanes = np.empty(LANES, np.int32)
    store(lanes, 0, v)
    top = 0
    for i in range(LANES):
        top = max(top, lanes[i])
    return top


@kernel
def widen_f16(values, out):
    """IEEE float16 to float32.

    values  u16 [n]  n a multiple of LANES
    out     f32 [n]
    Returns the largest bit pattern without sign: magnitudes are ordered as their bits are, infinity and NaN on top.
    """
    largest = bits(splat(ZERO))
    for i in range(0, values.size, LANES):
        h = widened(load(values, i))
        largest = larger(h & 0x7FFF, largest)
        store(out, i, from_half(h))
    return largest_lane(largest)


@kernel
def widen_bf16(values, out):
    """bfloat16 to float32: it is the upper half of one.

    values  u16 [n]  n a multiple of LANES
    out     f32 [n]
    Returns the largest bit pattern without sign.
    """
    largest = bits(splat(ZERO))
    for i in range(0, values.size, LANES):
        h = widened(load(values, i))
        largest = larger(h & 0x7FFF, largest)
        store(out, i, from_bits(h << 16))
    return largest_lane(largest)


@kernel
def copy_f32(values, out):
    """float32 as it is.

    values  i32 [n]  n a multiple of LANES
    out     f32 [n]
    Returns the largest bit pattern without sign.
    """
    largest = bits(splat(ZERO))
    for i in range(0, values.size, LANES):
        u = load(values, i)
        largest = larger(u & 0x7FFFFFFF, largest)
        store(out, i, from_bits(u))
    return largest_lane(largest)


_RUN = {"F16": widen_f16, "BF16": widen_bf16, "F32": copy_f32}
