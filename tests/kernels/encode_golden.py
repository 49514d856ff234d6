"""Encodes the frozen weights and compares with llama.cpp's frozen bytes; run as a program for other kinds of CPU.

python encode_golden.py Q4_K,Q8_0     prints one line per format: its name and the number of bytes that differ
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.encode import encode

GOLDEN = Path(__file__).parent.parent / "golden" / "blocks.npz"


def differing(name: str) -> int:
    """Bytes of a format that are not the frozen ones."""
    with np.load(GOLDEN) as frozen:
        weights, theirs = frozen["weights"].reshape(-1), frozen[name]
    out = np.zeros(FORMATS[name].row_bytes(weights.size), np.uint8)
    encode(name, weights, out)
    assert out.size == theirs.size
    return int((out != theirs).sum())


if __name__ == "__main__":
    for format_name in sys.argv[1].split(","):
        print(format_name, differing(format_name))
