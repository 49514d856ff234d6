"""Weights for the encoders: ordinary ones and every kind of edge, in rows of 1024."""

from __future__ import annotations

import numpy as np

ROW = 1024


def gaussian(seed: int, n_rows: int) -> np.ndarray:
    """Weights as a trained model has them, exact in float16."""
    w = 0.02 * np.random.default_rng(seed).standard_normal((n_rows, ROW))
    return w.astype(np.float16).astype(np.float32)


def full_floats(seed: int, n_rows: int) -> np.ndarray:
    """float32 values of all magnitudes that float16 scales can still express."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((n_rows, ROW)) * 10.0 ** rng.integers(-9, 3, (n_rows, ROW // 32)).repeat(32, axis=1)
    return w.astype(np.float32)


def edges(seed: int, n_rows: int) -> np.ndarray:
    """Rows of zeros, both signs, constants, subnormals, the largest halves, spikes, plateaus, mixtures of them."""
    rng = np.random.default_rng(seed)
    i = np.arange(ROW)
    kinds = [
        lambda v: 0 * v,
        lambda v: -0.0 * np.abs(v),
        lambda v: np.where(i % 2 == 0, 0.0, -0.0),
        lambda v: 0 * v + 0.5,
        lambda v: 0 * v - 0.5,
        lambda v: v * 1e-6,
        lambda v: 0 * v + 6e-8,
        lambda v: 0 * v - 6e-8,
        lambda v: v * 3e-16,  # below the magnitude that counts as zero; needs float32
        lambda v: v * 1e-40,  # subnormal in float32: its reciprocal overflows
        lambda v: np.clip(v * 4e6, -65504, 65504),
        lambda v: np.abs(v),
        lambda v: -np.abs(v),
        lambda v: np.where(i == 77, 1.0, 0.0),
        lambda v: np.where(i % 256 == 3, -65504.0, v * 1e-3),
        lambda v: v * np.exp(3 * rng.standard_normal(ROW)),
        lambda v: np.sign(v) * 0.1,
        lambda v: -60000 + v * 1000,
        lambda v: 60000 + v * 1000,
        lambda v: np.where(rng.random(ROW) < 0.9, 0, v),
        lambda v: -1 + v * 1e-2,
        lambda v: np.round(v * 100) / 64,
        lambda v: np.where(i // 32 % 2 == 0, 0, v),
        lambda v: (i // 16 % 7 - 3) * v,
        lambda v: np.where(i // 32 % 3 == 0, -60000.0 + v, v * 1e-4),
        lambda v: np.linspace(-1, 1, ROW) * 0.3,
        lambda v: np.where(i // 16 % 4 == 1, -0.25, v),
        lambda v: np.where(i % 32 == 0, 127.0, i % 120 - 59.5),  # ties of Q8_0's rounding, both signs
    ]
    w = 0.02 * rng.standard_normal((n_rows, ROW))
    for r in range(n_rows):
        w[r] = kinds[r % len(kinds)](w[r])
    return w.astype(np.float32)


def importances(seed: int) -> dict[str, np.ndarray]:
    """Importances of ROW columns: as activations give them, and those that make the searches degenerate."""
    rng = np.random.default_rng(seed)
    squares = rng.standard_normal(ROW) ** 2
    values = {
        "squares": squares,
        "ones": np.ones(ROW),
        "zeros": np.zeros(ROW),
        "some zeros": np.where(rng.random(ROW) < 0.7, 0, squares),
        # One weight of a group counts, so that rounding alone decides the signs of determinants.
        "sparse": np.where(rng.random(ROW) < 0.05, 10.0 ** rng.uniform(-3, 3, ROW), 0),
        "24 magnitudes": 10.0 ** rng.uniform(-12, 12, ROW),
    }
    return {name: v.astype(np.float32) for name, v in values.items()}
