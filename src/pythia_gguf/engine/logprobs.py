"""Log-probabilities of tokens: logits minus the logarithm of the sum of their exponentials, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pythia_gguf.kernels.odds import odds_sum

# Slices of the vocabulary; more than the tokens that may be asked for.
_N_SLICES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How likely a token was, before any filter or temperature.

    token    its id
    logprob  natural logarithm of its probability
    top      the most likely tokens there and their log-probabilities, most likely first; among equals the lowest id
             comes first
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Logprobs:
    """Log-probabilities of all tokens at one position.

    odds_sum  sum of the odds of each token to the most likely one
    """

    def __init__(self, logits: np.ndarray) -> None:
        """Take logits f32 [n_vocab]."""
        self._logits, most = logits, float(logits.max())
        self.odds_sum = odds_sum(logits, most)
        self._total = most + math.log(self.odds_sum)

    def of(self, token: int, n_top: int) -> TokenLogprob:
        """The log-probability of one token, and those of the n most likely ones."""
        top = tuple((int(i), self._logprob(i)) for i in _most_likely(self._logits, n_top)) if n_top else ()
        return TokenLogprob(token=token, logprob=self._logprob(token), top=top)

    def _logprob(self, token: int) -> float:
        return float(self._logits[token]) - self._total


def log_sum_exp(logits: np.ndarray) -> float:
    """log(sum(exp(logits))), float64."""
    most = float(logits.max())
    return most + math.log(odds_sum(logits, most))


def _most_likely(logits: np.ndarray, n: int) -> np.ndarray:
    """Ids of the n largest values, largest first; among equals the lowest id comes first."""
    n = min(n, logits.size)
    width = logits.size // _N_SLICES
    least = np.float32(-np.inf)
    if width:
        # The n-th of the slices' largest is no larger than the n-th of all.
        largest = logits[: width * _N_SLICES].reshape(width, _N_SLICES).max(axis=0)
        least = np.partition(largest, -n)[-n]
    ids = np.flatnonzero(logits >= least)
    values = logits[ids]
    if ids.size > n:  # of many equals only the first are wanted
        least = np.partition(values, -n)[-n]
        above, equal = ids[values > least], ids[values == least]
        ids = np.concatenate([above, equal[: n - above.size]])
    return ids[np.lexsort((ids, -logits[ids]))]
