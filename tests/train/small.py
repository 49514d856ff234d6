"""Recipes and data that are small enough to train in a test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from data import neox
from pythia_gguf.train.recipe import Recipe


def recipe(**changes: Any) -> Recipe:
    """Two layers of width 64, 12 steps of 8 rows of 32 tokens."""
    values: dict[str, Any] = {
        "name": "small", "layers": 2, "hidden": 64, "heads": 4, "vocabulary": 300, "context": 32, "feed_forward": 256,
        "steps": 12, "batch": 8, "peak_rate": 1e-2, "least_rate": 1e-3, "decay_steps": 12, "warmup": 0.25, "every": 4,
        "seed": 5,
    }  # fmt: skip
    return Recipe(**values | changes)


def corpus(prefix: Path, n_vocab: int = 300, seed: int = 3) -> Path:
    """Documents of words that repeat, so that there is something to learn."""
    rng = random.Random(seed)
    words = [[rng.randrange(1, n_vocab) for _ in range(rng.randrange(1, 5))] for _ in range(40)]
    documents = [[t for _ in range(rng.randrange(5, 60)) for t in rng.choice(words)] + [0] for _ in range(60)]
    return neox.write_corpus(prefix, documents)
