"""Logits of a file of the sample; run as a program for other kinds of CPU.

python logits_elsewhere.py FILE ACTIVATIONS OUT.npy    of 40 tokens of the held-out text, then of its first 5 alone
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pythia_gguf.engine.model import load

HELDOUT = Path(__file__).parents[2] / "examples" / "nano" / "heldout.txt"


def logits(path: Path, activations: str) -> np.ndarray:
    """f32 [45, n_vocab]; products of many tokens and of few have kernels of their own."""
    model = load(path, threads=2, gelu="erf", activations=activations)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8")[:500])[:40]
    return np.concatenate([model.logits(ids), model.logits(ids[:5])])


if __name__ == "__main__":
    np.save(sys.argv[3], logits(Path(sys.argv[1]), sys.argv[2]))
