"""Sampling and log-probabilities the plain way, all tokens sorted: what the engine must choose, to the bit.

It takes no shortcut. The bench measures against it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pythia_gguf.engine.sampling import Sampling


def order_of(logits: np.ndarray) -> np.ndarray:
    """Ids by falling logit, equals by rising id."""
    return np.lexsort((np.arange(logits.size), -logits))


def choose(sampling: Sampling, logits: np.ndarray, drawn: float, order: np.ndarray | None = None) -> int:
    """An id for logits f32 [n_vocab] and a random number in [0, 1); temperature above 0, no repeat penalty."""
    ids = (order_of(logits) if order is None else order)[: sampling.top_k or None]
    chosen = logits[ids].astype(np.float64)
    odds = np.exp(chosen - chosen[0])
    reached = np.searchsorted(np.cumsum(odds), sampling.top_p * odds.sum()) + 1 if sampling.top_p < 1 else odds.size
    kept = max(1, min(int(reached), int((odds >= sampling.min_p).sum())))
    with np.errstate(over="ignore"):  # of temperatures near 0
        sums = np.cumsum(np.exp((chosen[:kept] - chosen[0]) / sampling.temperature))
    i = np.searchsorted(sums, drawn * sums[-1], side="right")
    return int(ids[min(int(i), kept - 1)])


def generator(sampling: Sampling) -> np.random.Generator:
    """The random numbers of a seed."""
    return np.random.Generator(np.random.PCG64(sampling.seed))


def logprobs(logits: np.ndarray, tokens: Sequence[int], n_top: int) -> list[tuple[float, list[tuple[int, float]]]]:
    """For each token its log-probability, and the most likely ones; of equals the lowest id first."""
    values = logits.astype(np.float64)
    most = float(values.max())
    values -= most + math.log(float(np.exp(values - most).sum()))
    best = np.lexsort((np.arange(values.size), -values))[:n_top]
    top = [(int(i), float(values[i])) for i in best]
    return [(float(values[token]), top) for token in tokens]
