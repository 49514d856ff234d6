"""Stored weights to float32 on the way into the encoders, and the largest magnitude among them.

Half precision is taken apart with integers, so it gives the same bits where the processor has no instruction for it.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.c_kernel import CKernel, kernel_of

# The kernels take whole vectors of this many values: their LANES.
VECTOR = 32
_KERNELS = {"F16": "widen_f16", "BF16": "widen_bf16", "F32": "copy_f32"}


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
    whole = out.size // VECTOR * VECTOR
    largest = _run(stored, values[:whole], out[:whole])
    if whole < out.size:
        rest, rest_out = np.zeros(VECTOR, values.dtype), np.empty(VECTOR, np.float32)
        rest[: out.size - whole] = values[whole:]
        largest = max(largest, _run(stored, rest, rest_out))
        out[whole:] = rest_out[: out.size - whole]
    return float(FORMATS[stored].decode(np.array([largest], values.dtype))[0])


@cache
def _kernel(stored: str) -> CKernel:
    return kernel_of("stored_values", _KERNELS[stored], 4)


def _run(stored: str, values: np.ndarray, out: np.ndarray) -> int:
    """Widen whole vectors; returns the largest bit pattern."""
    largest = ctypes.c_int64()
    _kernel(stored).run(values.ctypes.data, values.size, out.ctypes.data, ctypes.addressof(largest))
    return largest.value
