"""Chooses a token by its logits: the usual filters, then one random number for each token.

Filters have the order of llama.cpp's default chain: repeat penalty, top-k, top-p, min-p, temperature. A token takes
exactly one number of the generator, so the n-th choice does not depend on how many steps led to it.

Picture the tokens in a row by falling logit, equals by rising id, each as wide as its odds; the random number is a
place in that row. Sums of odds are float64 from left to right, so a seed gives the same token by every way of finding
it. Only values are sorted; the id is looked up for the value at the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from pythia_gguf.arguments import check_fields, number, whole_number

PENALIZED_TOKENS = 64
# Without filters the most likely tokens are tried first: most places are theirs.
_N_FIRST = 1024
# Above the relative error of a sum of odds computed in float32: 5e-6 from exponents, the rest from exp and sum.
_FLOAT32_ERROR = 2e-5
# Float32 has all its digits down to here.
_LEAST_TEMPERATURE = 1e-30


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
    logit_bias      added to the logits of these tokens, by id, before all else but the penalty
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range, TypeError for one of another type."""
        check_fields(
            self,
            temperature=number(0, 1e6),
            top_k=whole_number(0, 1 << 31),
            top_p=number(0, 1),
            min_p=number(0, 1),
            repeat_penalty=number(1e-3, 1e3),
            seed=whole_number(0, 1 << 128),
            logit_bias=_biases,
        )


class Sampler:
    """Chooses one token after the other."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    def choose(
        self,
        logits: np.ndarray,
        before: Sequence[int],
        odds_sum: float | None = None,
        room: np.ndarray | None = None,
    ) -> int:
        """An id for logits f32 [n_vocab]; of equals the lowest id.

        before    the tokens so far
        odds_sum  `Logprobs.odds_sum` of the logits, if the caller has it: it saves time and changes nothing
        room      memory to work in, from `room_for`; None takes new memory, which costs as much as the choice
        """
        s = self._sampling
        penalized = _biased(_penalized(logits, before[-PENALIZED_TOKENS:], s.repeat_penalty), s.logit_bias)
        if s.temperature == 0:
            return int(np.argmax(penalized))
        return token_at(self._random.random(), penalized, s, odds_sum if penalized is logits else None, room)


def room_for(n_vocab: int) -> np.ndarray:
    """Memory for choices and log-probabilities, with any content."""
    return np.empty((2, n_vocab), np.float64)


def token_at(
    drawn: float, logits: np.ndarray, s: Sampling, odds_sum: float | None = None, room: np.ndarray | None = None
) -> int:
    """The id at a place in the row, 0 <= drawn < 1; uses all of the sampling but penalty and seed."""
    singles, doubles = room_for(logits.size) if room is None else room
    singles = singles.view(np.float32)[: logits.size]
    n = min(s.top_k or logits.size, logits.size)
    is_open = n == logits.size and s.top_p == 1 and s.min_p == 0
    rank = None
    if is_open and n > _N_FIRST and s.temperature >= _LEAST_TEMPERATURE:
        if odds_sum is None or s.temperature != 1:
            odds_sum = _odds_sum(logits, s.temperature, singles)
        if drawn * odds_sum < _N_FIRST:  # no odds are above 1
            values = _largest(logits, _N_FIRST, singles)
            rank = _rank_of_first(values, odds_sum, s.temperature, drawn, doubles)
    if rank is None:
        values = _largest(logits, n, singles)
        rank = _rank(values, s, drawn, doubles)
    met = values[rank]
    return int(np.flatnonzero(logits == met)[rank - np.count_nonzero(values > met)])


def _rank(values: np.ndarray, s: Sampling, drawn: float, room: np.ndarray) -> int:
    """Which of all values, in falling order, lies at the place."""
    gaps = _gaps(values, room)
    kept = values.size
    if s.top_p < 1 or s.min_p:
        odds = np.exp(gaps)
        # Those before the one that reaches top_p, and that one.
        reached = np.searchsorted(np.cumsum(odds), s.top_p * odds.sum()) + 1 if s.top_p < 1 else odds.size
        kept = max(1, min(int(reached), int(np.count_nonzero(odds >= s.min_p))))
    sums = _sums(gaps[:kept], s.temperature)
    return min(int(np.searchsorted(sums, drawn * sums[-1], side="right")), kept - 1)


def _rank_of_first(
    values: np.ndarray, odds_sum: float, temperature: float, drawn: float, room: np.ndarray
) -> int | None:
    """Which of the first values lies at the place; None when another may, or the place is too near to a border."""
    place = drawn * odds_sum
    sums = _sums(_gaps(values, room), temperature)
    first, last = np.searchsorted(sums, [place * (1 - _FLOAT32_ERROR), place * (1 + _FLOAT32_ERROR)], side="right")
    return int(first) if first == last < values.size else None


@np.errstate(over="ignore")
def _odds_sum(logits: np.ndarray, temperature: float, odds: np.ndarray) -> float:
    """Sum of the odds of all logits, with a relative error of at most `_FLOAT32_ERROR`."""
    np.subtract(logits, logits.max(), out=odds)
    odds /= np.float32(temperature)
    return float(np.exp(odds, out=odds).sum())


def _gaps(values: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How far each is below the first, float64."""
    gaps = room[: values.size]
    gaps[:] = values
    gaps -= gaps[0]
    return gaps


@np.errstate(over="ignore")
def _sums(gaps: np.ndarray, temperature: float) -> np.ndarray:
    """Where the odds of each end in the row; overwrites the gaps."""
    if temperature != 1:
        gaps /= temperature
    return np.cumsum(np.exp(gaps, out=gaps))


def _penalized(logits: np.ndarray, before: Sequence[int], penalty: float) -> np.ndarray:
    if penalty == 1 or not before:
        return logits
    logits, ids = logits.copy(), np.unique(np.asarray(before))
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / np.float32(penalty), values * np.float32(penalty))
    return logits


def _biases(name: str, value: object) -> Mapping[int, float]:
    """A check of arguments: numbers by token."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of tokens to numbers, got {type(value).__name__}")
    biases = {whole_number(0)(name, token): number(-1e6, 1e6)(name, bias) for token, bias in value.items()}
    return MappingProxyType(biases)


def _biased(logits: np.ndarray, biases: Mapping[int, float]) -> np.ndarray:
    if not biases:
        return logits
    logits = logits.copy()
    logits[list(biases)] += np.array(list(biases.values()), np.float32)
    return logits


def _largest(logits: np.ndarray, k: int, room: np.ndarray) -> np.ndarray:
    """The k largest, in falling order."""
    lowered = np.negative(logits, out=room)
    if k < logits.size:
        lowered.partition(k - 1)
        lowered = lowered[:k]
    lowered.sort()
    return np.negative(lowered, out=lowered)
