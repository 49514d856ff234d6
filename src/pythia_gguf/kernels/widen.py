"""Stored weights to float32 on the way into the encoders, with the one check that every weight gets: is it finite.

Knows nothing of files. Half precision is taken apart with integers, so it gives the same bits where the processor has
no instruction for it.
"""

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.jit import kernel
from pythia_gguf.kernels.lanes import ZERO, from_half
from pythia_gguf.kernels.simd import LANES, any_lane, from_bits, load, splat, store
from pythia_gguf.kernels.simd import widen as widened


def widen(stored: str, raw: np.ndarray, out: np.ndarray) -> bool:
    """Decode values of a format without blocks; exact.

    stored  F16, BF16 or F32
    raw     u8 [n * bytes of one value]  as in the file, little-endian
    out     f32 [n]
    Returns whether all are finite; where one is not, its place in `out` has no meaning.
    Raises  ValueError when the buffers do not fit.
    """
    if raw.dtype != np.uint8 or out.dtype != np.float32 or not (raw.flags.c_contiguous and out.flags.c_contiguous):
        raise ValueError(f"expected contiguous uint8 and float32, got {raw.dtype} and {out.dtype}")
    if raw.size != FORMATS[stored].row_bytes(out.size):
        raise ValueError(f"{raw.size} bytes do not hold {out.size} values of {stored}")
    values = raw.view(np.int32 if stored == "F32" else np.uint16)
    whole = out.size // LANES * LANES
    finite = _RUN[stored](values[:whole], out[:whole])
    if whole < out.size:
        rest, rest_out = np.zeros(LANES, values.dtype), np.empty(LANES, np.float32)
        rest[: out.size - whole] = values[whole:]
        finite &= _RUN[stored](rest, rest_out)
        out[whole:] = rest_out[: out.size - whole]
    return bool(finite)


@kernel
def widen_f16(values, out):
    """IEEE float16 to float32.

    values  u16 [n]  n a multiple of LANES
    out     f32 [n]
    Returns whether no exponent has all bits set.
    """
    bad = splat(ZERO) != splat(ZERO)
    for i in range(0, values.size, LANES):
        h = widened(load(values, i))
        bad = bad | ((h & 0x7C00) == 0x7C00)
        store(out, i, from_half(h))
    return not any_lane(bad)


@kernel
def widen_bf16(values, out):
    """bfloat16 to float32: it is the upper half of one.

    values  u16 [n]  n a multiple of LANES
    out     f32 [n]
    Returns whether no exponent has all bits set.
    """
    bad = splat(ZERO) != splat(ZERO)
    for i in range(0, values.size, LANES):
        h = widened(load(values, i))
        bad = bad | ((h & 0x7F80) == 0x7F80)
        store(out, i, from_bits(h << 16))
    return not any_lane(bad)


@kernel
def copy_f32(values, out):
    """float32 as it is.

    values  i32 [n]  n a multiple of LANES
    out     f32 [n]
    Returns whether no exponent has all bits set.
    """
    bad = splat(ZERO) != splat(ZERO)
    for i in range(0, values.size, LANES):
        u = load(values, i)
        bad = bad | ((u & 0x7F800000) == 0x7F800000)
        store(out, i, from_bits(u))
    return not any_lane(bad)


_RUN = {"F16": widen_f16, "BF16": widen_bf16, "F32": copy_f32}
