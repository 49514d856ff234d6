"""The pieces all encoders stand on, on every value that can reach them."""

from __future__ import annotations

import numpy as np
from numba import njit

from pythia_gguf.kernels.halves import store_number16
from pythia_gguf.kernels.lanes import WIDTH, from_half, nearest, to_half, truncate, turn_back, turn_groups
from pythia_gguf.kernels.lanes import load as load_groups
from pythia_gguf.kernels.simd import LANES, load, narrow, store


@njit
def halves_of(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, to_half(load(x, i)))


@njit
def stored_halves_of(x, out, words):
    for i in range(0, x.size, LANES):
        store_number16(out, i, load(x, i), words)


@njit
def floats_of(h, out):
    for i in range(0, h.size, LANES):
        store(out, i, from_half(load(h, i)))


@njit
def nearest_of(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, nearest(load(x, i)))


@njit
def truncate_of(x, out):
    for i in range(0, x.size, LANES):
        store(out, i, truncate(load(x, i)))


@njit
def turn_and_back(x, n, xt, turned, codes):
    turn_groups(x, 0, n, xt)
    for i in range(n):
        store(turned, i * WIDTH, narrow(nearest(load_groups(xt, i * WIDTH))))
    turn_back(turned, n, codes, 0, n)


def finite_halves() -> np.ndarray:
    h = np.arange(65536, dtype=np.uint16)
    return h[np.isfinite(h.view(np.float16))]


def padded(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.zeros(-x.size % LANES, x.dtype)])


def test_from_half_is_exact_for_every_finite_half():
    h = finite_halves()
    out = np.empty(padded(h).size, np.float32)
    floats_of(padded(h).astype(np.int32), out)
    assert np.array_equal(out[: h.size].view(np.uint32), h.view(np.float16).astype(np.float32).view(np.uint32))


def test_to_half_rounds_as_numpy_at_every_boundary():
    """All halves, the points halfway between neighbours, one step to each side of those, and large values."""
    h = np.sort(finite_halves().view(np.float16).astype(np.float32))
    middle = ((h[:-1].astype(np.float64) + h[1:]) / 2).astype(np.float32)
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, 1 << 32, 1 << 20, dtype=np.uint32).view(np.float32)
    x = np.concatenate([h, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), anywhere])
    x = padded(x[np.isfinite(x)])
    out = np.empty(x.size, np.int32)
    halves_of(x, out)
    stored = np.empty(x.size, np.uint16)
    stored_halves_of(x, stored, np.empty(LANES, np.int32))
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).view(np.uint16)
    assert np.array_equal(out.astype(np.uint16), wanted)
    assert np.array_equal(stored, wanted)


def test_nearest_is_half_to_even_and_zero_for_nan():
    x = padded(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 3.49, -7.51, 4194303.0, np.nan], np.float32))
    out = np.empty(x.size, np.int32)
    nearest_of(x, out)
    assert out[:9].tolist() == [0, 2, 2, 0, -2, 3, -8, 4194303, 0]


def test_truncate_is_zero_where_no_integer_fits():
    """x86 gives 0x80000000 there, whose low byte is 0; other CPUs saturate, which would be another code."""
    x = padded(np.array([1.9, -1.9, np.nan, np.inf, -np.inf, 3e9, -3e9], np.float32))
    out = np.empty(x.size, np.int32)
    truncate_of(x, out)
    assert out[:7].tolist() == [1, -1, 0, 0, 0, 0, 0]


def test_turning_there_and_back_keeps_the_order():
    for n in (16, 32):
        x = np.random.default_rng(n).integers(0, 256, n * WIDTH).astype(np.float32)
        xt, turned, codes = np.empty_like(x), np.empty(x.size, np.uint8), np.empty(x.size, np.uint8)
        turn_and_back(x, n, xt, turned, codes)
        assert np.array_equal(codes, x.astype(np.uint8))
        assert np.array_equal(xt.reshape(n, WIDTH).T.reshape(-1), x)
