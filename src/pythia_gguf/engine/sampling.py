"""Logits to a token: the usual filters, then one random number per token.

Knows no model. The order is that of llama.cpp's default chain: repeat penalty, top-k, top-p, min-p, temperature. A
token takes exactly one number of the generator, so the n-th choice does not depend on how many steps led to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.errors import Argument, UsageError

PENALIZED_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    temperature     divides logits; 0 takes the most likely token
    top_k           only the k most likely; 0 for all
    top_p           only the most likely that together have this probability; 1 for all (Holtzman et al.,
                    arXiv:1904.09751)
    min_p           only those at least this probable, relative to the most likely; 0 for all (arXiv:2407.01082)
    repeat_penalty  divides positive logits of the last 64 tokens, multiplies negative ones; 1 for none
                    (arXiv:1909.05858)
    seed            of the random numbers (PCG64)
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        for name, least, most in (
            ("temperature", 0, 1e6),
            ("top_k", 0, 1 << 31),
            ("top_p", 0, 1),
            ("min_p", 0, 1),
            ("repeat_penalty", 1e-3, 1e3),
            ("seed", 0, 1 << 128),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError(Argument(name), f" must be between {least} and {most:g}, got {value}")


class Sampler:
    """Chooses one token after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    def choose(self, logits: np.ndarray, before: Sequence[int]) -> int:
        """An id for logits f32 [n_vocab]; `before` are the tokens so far. Of equals the lowest id."""
        s = self._sampling
        logits = _penalized(logits, before[-PENALIZED_TOKENS:], s.repeat_penalty)
        if s.temperature == 0:
            return int(np.argmax(logits))
        ids = _most_likely(logits, s.top_k)
        chosen = logits[ids].astype(np.float64)
        odds = np.exp(chosen - chosen[0])
        # Those before the one that reaches top_p, and that one.
        reached = np.searchsorted(np.cumsum(odds), s.top_p * odds.sum()) + 1 if s.top_p < 1 else odds.size
        kept = max(1, min(int(reached), int((odds >= s.min_p).sum())))
        sums = np.cumsum(np.exp((chosen[:kept] - chosen[0]) / s.temperature))
        i = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
        return int(ids[min(int(i), kept - 1)])


def _penalized(logits: np.ndarray, before: Sequence[int], penalty: float) -> np.ndarray:
    if penalty == 1 or not before:
        return logits
    logits, ids = logits.copy(), np.unique(np.asarray(before))
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / np.float32(penalty), values * np.float32(penalty))
    return logits


def _most_likely(logits: np.ndarray, k: int) -> np.ndarray:
    """Ids by falling logit, equals by rising id; at most k of them unless k is 0."""
    ids = np.arange(logits.size)
    if 0 < k < logits.size:
        kth = np.partition(logits, -k)[-k]
        ids = np.flatnonzero(logits >= kth)
    return ids[np.lexsort((ids, -logits[ids]))][: k or None]
