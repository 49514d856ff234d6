"""Stored values become the float32 they stand for, and the largest magnitude is found wherever it is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pythia_gguf.kernels.widen import widen

TYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}


def every_value(stored: str) -> np.ndarray:
    """All 65,536 values of a 16-bit type; a million bit patterns of float32."""
    if stored == "F32":
        return np.random.default_rng(0).integers(0, 1 << 32, 1_000_003, dtype=np.uint32).view(np.float32)
    return np.arange(65536, dtype=np.uint16).view(TYPES[stored])


@pytest.mark.parametrize("stored", TYPES)
def test_every_finite_value_is_exact(stored: str):
    values = every_value(stored)
    values = values[np.isfinite(values.astype(np.float32))]
    out = np.empty(values.size, np.float32)
    assert widen(stored, values.view(np.uint8), out) == np.abs(values.astype(np.float32)).max()
    assert np.array_equal(out.view(np.uint32), values.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("largest", [np.nan, np.inf, -np.inf, 3.0, -3.0])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_one_large_value_is_noticed_at_every_place(stored: str, largest: float, n: int):
    for i in range(n):
        values = np.ones(n, TYPES[stored])
        values[i] = largest
        found = widen(stored, values.view(np.uint8), np.empty(n, np.float32))
        assert np.array_equal(found, abs(largest), equal_nan=True)


@pytest.mark.parametrize(
    ("stored", "raw", "out"),
    [
        ("F16", np.zeros(3, np.uint8), np.zeros(2, np.float32)),
        ("F32", np.zeros(8, np.uint8), np.zeros(1, np.float32)),
        ("BF16", np.zeros(4, np.int8), np.zeros(2, np.float32)),
        ("BF16", np.zeros(8, np.uint8)[::2], np.zeros(2, np.float32)),
    ],
)
def test_buffers_that_do_not_fit_are_refused(stored: str, raw: np.ndarray, out: np.ndarray):
    with pytest.raises(ValueError, match="expected contiguous|do not hold"):
        widen(stored, raw, out)
