"""Encodes the frozen weights and compares with llama.cpp's frozen bytes; run as a program for other kinds of CPU.

python encode_golden.py "Q4_K,Q8_0,Q4_K weighted"   prints for each format, without or with importances of the columns,
its name and the number of bytes that differ
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.encode import encode

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


if __name__ == "__main__":
    for format_name in sys.argv[1].split(","):
        print(format_name, differing(format_name))
