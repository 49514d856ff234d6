"""GPT-NeoX's data files and order, restated slowly from its format and its loops; no fast path of ours is used."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def idx_bytes(sizes: Sequence[int], item: int = 2, code: int = 8, documents: Sequence[int] | None = None) -> bytes:
    """An index, entry by entry; `documents` None: every sequence is one."""
    starts = list(range(len(sizes) + 1)) if documents is None else list(documents)
    out = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sizes), len(starts))
    out += b"".join(struct.pack("<i", size) for size in sizes)
    at = 0
    for size in sizes:
        out += struct.pack("<q", at)
        at += size * item
    return out + b"".join(struct.pack("<q", start) for start in starts)


def write_corpus(prefix: Path, documents: Sequence[Sequence[int]]) -> Path:
    """Both files of some documents; the prefix."""
    prefix.with_name(prefix.name + ".idx").write_bytes(idx_bytes([len(d) for d in documents]))
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(struct.pack("<H", t) for d in documents for t in d))
    return prefix


def n_epochs(tokens: int, row_tokens: int, n_samples: int) -> int:
    """How often all documents are read: counted up, as the published loop does."""
    epochs, total = 0, 0
    while True:
        epochs += 1
        total += tokens
        if (total - 1) // row_tokens >= n_samples:
            return epochs


def order(sizes: Sequence[int], row_tokens: int, n_samples: int, seed: int) -> tuple[list[int], list, list[int]]:
    """Documents, (place in them, offset) of each sample, and the shuffle; token by token where that is possible."""
    tokens = sum(sizes)
    epochs = n_epochs(tokens, row_tokens, n_samples)
    # The generator that GPT-NeoX seeds, whose shuffles are part of the format.
    generator = np.random.RandomState(seed)  # noqa: NPY002
    documents = np.array(list(range(len(sizes))) * epochs, np.int32)
    generator.shuffle(documents)
    # Where every token of the stream lies.
    stream = [(place, offset) for place, d in enumerate(documents) for offset in range(sizes[d])]
    n = (epochs * tokens - 1) // row_tokens
    samples = [(0, 0)] + [stream[k * row_tokens] for k in range(1, n + 1)]
    shuffle = np.arange(n, dtype=np.uint32)
    generator.shuffle(shuffle)
    return documents.tolist(), samples, shuffle.tolist()


def rows(documents: Sequence[Sequence[int]], row_tokens: int, n_samples: int, seed: int) -> list[list[int]]:
    """Every row of training, `row_tokens` + 1 tokens each, in the order of training."""
    order_of, _, shuffle = order([len(d) for d in documents], row_tokens, n_samples, seed)
    stream = [token for d in order_of for token in documents[d]]
    return [stream[k * row_tokens : (k + 1) * row_tokens + 1] for k in shuffle]
