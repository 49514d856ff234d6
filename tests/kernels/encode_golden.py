"""Encodes the frozen weights and compares with llama.cpp's frozen bytes; run as a program for other kinds of CPU.

python encode_golden.py "Q4_K,Q8_0,Q4_K weighted,levels"   prints for each format, without or with importances of the
columns, its name and the number of bytes that differ; "levels": how many values IQ4 puts to one that is not the nearest
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numba import njit

from pythia_gguf.formats import FORMATS
from pythia_gguf.formats.iq4_nl import LEVELS
from pythia_gguf.kernels.encode import encode
from pythia_gguf.kernels.iq4_nl import WITHIN, nearest_index, nearest_level
from pythia_gguf.kernels.lanes import WIDTH, load
from pythia_gguf.kernels.simd import store

GOLDEN = Path(__file__).parent.parent / "golden" / "blocks.npz"


def differing(name: str) -> int:
    """Bytes of a format that are not the frozen ones; with importances for "<format> weighted"."""
    with np.load(GOLDEN) as frozen:
        weights, theirs, importance = frozen["weights"].reshape(-1), frozen[name], frozen["importance"]
    format_name, _, weighted = name.partition(" ")
    out = np.zeros(FORMATS[format_name].row_bytes(weights.size), np.uint8)
    encode(format_name, weights, out, importance if weighted else None)
    assert out.size == theirs.size
    return int((out != theirs).sum())


@njit
def _levels_of(x, levels, indices):
    for i in range(0, x.size, WIDTH):
        store(levels, i, nearest_level(load(x, i)))
        store(indices, i, nearest_index(load(x, i)))


def wrong_levels() -> int:
    """Values whose level or index is not the nearest: around midpoints one by one, and everywhere between."""
    levels = np.array(LEVELS, np.float64)
    midpoints = (levels[:-1] + levels[1:]) / 2
    near = (midpoints.astype(np.float32).view(np.int32)[:, None] + np.arange(-100, 101, dtype=np.int32)).view(
        np.float32
    )
    x = np.concatenate([near.reshape(-1), np.linspace(-WITHIN, WITHIN, 100_000, dtype=np.float32)])
    x = np.concatenate([x, np.zeros(-x.size % WIDTH, np.float32)])
    found, indices = np.empty_like(x), np.empty(x.size, np.int32)
    _levels_of(x, found, indices)
    right = np.searchsorted(midpoints, x.astype(np.float64), side="right")
    return int(((found != levels[right]) | (indices != right)).sum())


if __name__ == "__main__":
    for asked in sys.argv[1].split(","):
        print(asked, wrong_levels() if asked == "levels" else differing(asked))
