"""Sampling against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine import full_sort
from pythia_gguf.engine.logprobs import Logprobs
from pythia_gguf.engine.sampling import Sampler, Sampling, room_for, token_at

# Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625 of ids 3, 1, 4, 0, 2.
LOGITS = np.log(np.array([0.0625, 0.25, 0.0625, 0.5, 0.125], np.float32))
OPEN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def shares(n: int = 4000, before: tuple[int, ...] = (), **options: float) -> dict[int, float]:
    """How often each id is chosen."""
    sampler = Sampler(Sampling(**(OPEN | options), seed=1))  # type: ignore[arg-type]
    ids, counts = np.unique([sampler.choose(LOGITS, before) for _ in range(n)], return_counts=True)
    return dict(zip(ids.tolist(), (counts / n).tolist(), strict=True))


# Three standard deviations of a share of 1/2 among 4,000 are 0.024.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {3: 0.5, 1: 0.25, 4: 0.125, 0: 0.0625, 2: 0.0625}),
        ({"top_k": 2}, {3: 2 / 3, 1: 1 / 3}),
        ({"top_k": 4}, {3: 8 / 15, 1: 4 / 15, 4: 2 / 15, 0: 1 / 15}),  # of equals the lowest id
        ({"top_p": 0.75}, {3: 2 / 3, 1: 1 / 3}),
        ({"top_p": 0.76}, {3: 4 / 7, 1: 2 / 7, 4: 1 / 7}),
        ({"top_p": 0.0}, {3: 1.0}),
        ({"min_p": 0.24}, {3: 4 / 7, 1: 2 / 7, 4: 1 / 7}),
        ({"min_p": 0.26}, {3: 2 / 3, 1: 1 / 3}),
        ({"temperature": 0.5}, {3: 64 / 86, 1: 16 / 86, 4: 4 / 86, 0: 1 / 86, 2: 1 / 86}),  # squares
        ({"temperature": 0}, {3: 1.0}),
        ({"temperature": 1e6, "top_k": 2}, {3: 0.5, 1: 0.5}),
    ],
    ids=str,
)
def test_shares_are_those_of_the_filtered_distribution(options: dict, expected: dict[int, float]):
    found = shares(**options)
    assert found.keys() == expected.keys()
    assert all(abs(found[i] - expected[i]) < 0.024 for i in expected)


def test_temperature_comes_after_top_p():
    """Before it, 0.75 would be reached by the first two at 0.5 as well, but by four of five at 4."""
    assert shares(top_p=0.75, temperature=4.0).keys() == {3, 1}


def test_repeat_penalty_divides_positive_and_multiplies_negative_logits():
    sampler = Sampler(Sampling(**OPEN | {"temperature": 0}, repeat_penalty=2.0))  # type: ignore[arg-type]
    assert sampler.choose(np.array([3, 2, -1], np.float32), [0]) == 1  # 1.5 < 2
    assert sampler.choose(np.array([-3, -2, -2.5], np.float32), [1]) == 2  # -4 < -2.5
    assert sampler.choose(np.array([3, 2, -1], np.float32), [0] + [2] * 64) == 0  # forgotten after 64


def test_each_choice_takes_one_random_number():
    """The n-th choice of a seed is the same, whatever was chosen from before."""
    one, other = Sampler(Sampling(**OPEN, seed=3)), Sampler(Sampling(**OPEN, seed=3))  # type: ignore[arg-type]
    flat = np.zeros(1000, np.float32)
    for _ in range(5):
        one.choose(LOGITS, [])
        other.choose(flat, [])
    assert one.choose(flat, []) == other.choose(flat, [])


def kinds_of_logits(n: int) -> dict[str, np.ndarray]:
    """Logits f32 [n] of every shape that may matter for the order and the sums."""
    dice = np.random.default_rng(n)
    zipf = dice.permutation(-np.log(np.arange(1, n + 1))).astype(np.float32)
    ties = np.round(dice.normal(0, 2, n)).astype(np.float32)
    impossible = np.where(dice.random(n) < 0.9, -np.inf, zipf).astype(np.float32)
    spiky = dice.normal(0, 1, n).astype(np.float32)
    spiky[n // 2] = 30
    return {
        "zipf": zipf,
        "flat": np.zeros(n, np.float32),
        "both zeros": np.where(dice.random(n) < 0.5, -0.0, 0.0).astype(np.float32),
        "normal": dice.normal(0, 1, n).astype(np.float32),
        "wide": dice.normal(0, 40, n).astype(np.float32),
        "huge": dice.normal(0, 1e38, n).clip(-3e38, 3e38).astype(np.float32),
        "ties": ties,
        "impossible": impossible,
        "spiky": spiky,
    }


FILTERS = [
    *({"top_p": p, "temperature": t} for p in (0.0, 0.9, 0.95, 1.0) for t in (1.0, 0.7, 1e-320)),
    *({"top_k": k, "temperature": t} for k in (1, 40, 1000, 1025, 50304, 1 << 31) for t in (1.0, 2.5)),
    *({"min_p": m, "top_p": p} for m in (0.0, 0.05, 1.0) for p in (1.0, 0.9)),
    {"temperature": 1e6},
    {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
]


@pytest.mark.parametrize("n", [1, 7, 1024, 1025, 50304])
def test_no_token_differs_from_those_of_a_full_sort(n: int):
    """Random numbers of a seed, and both ends of [0, 1)."""
    for kind, logits in kinds_of_logits(n).items():
        order = full_sort.order_of(logits)
        for filters in FILTERS:
            sampling = Sampling(**(OPEN | filters), seed=n)  # type: ignore[arg-type]
            drawn = full_sort.generator(sampling).random(3)
            for d in (0.0, *drawn, np.nextafter(1, 0)):
                expected = full_sort.choose(sampling, logits, d, order)
                assert token_at(d, logits, sampling) == expected, (kind, filters, d)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_no_token_differs_in_many_draws(temperature: float):
    """Of first tokens, of later ones, and near borders: the plain way's sums are computed once."""
    sampling = Sampling(**OPEN | {"temperature": temperature}, seed=2)  # type: ignore[arg-type]
    for kind in ("zipf", "normal"):
        logits = kinds_of_logits(50304)[kind]
        order = full_sort.order_of(logits)
        sums = np.cumsum(np.exp((logits[order].astype(np.float64) - float(logits.max())) / temperature))
        sampler, dice = Sampler(sampling), full_sort.generator(sampling)
        drawn = dice.random(1000)
        expected = order[np.searchsorted(sums, drawn * sums[-1], side="right")]
        room = room_for(logits.size)
        known = Logprobs(logits).odds_sum
        assert [sampler.choose(logits, [], known, room) for _ in drawn] == expected.tolist(), kind


def test_no_token_differs_at_borders():
    """The number that is just a border of the row, and its neighbours: there rounding decides."""
    logits = kinds_of_logits(50304)["zipf"]
    sampling = Sampling(**OPEN)  # type: ignore[arg-type]
    sums = np.cumsum(np.exp(np.sort(logits.astype(np.float64))[::-1] - float(logits.max())))
    places = [sums[rank] / sums[-1] for rank in (0, 1, 10, 500, 1022, 1023, 1024, 30000)]
    for drawn in (d for at in places for d in (np.nextafter(at, 0), at, np.nextafter(at, 1))):
        assert token_at(drawn, logits, sampling) == full_sort.choose(sampling, logits, drawn)


def test_penalized_tokens_are_chosen_as_if_their_logits_were_so():
    """The sum of odds that somebody has is of the logits before the penalty: it is not used."""
    logits = kinds_of_logits(50304)["zipf"] + np.float32(5)
    before = np.argsort(-logits)[:8].tolist()
    sampling = Sampling(**OPEN, repeat_penalty=3.0, seed=4)  # type: ignore[arg-type]
    sampler, dice = Sampler(sampling), full_sort.generator(sampling)
    lowered = logits.copy()
    lowered[before] /= np.float32(3)
    for _ in range(40):
        chosen = sampler.choose(logits, before, Logprobs(logits).odds_sum)
        assert chosen == full_sort.choose(sampling, lowered, dice.random())


@pytest.mark.parametrize("n", [1, 7, 511, 512, 1025, 50304])
@pytest.mark.parametrize("n_top", [0, 1, 5, 100])
def test_logprobs_are_those_of_a_full_sort(n: int, n_top: int):
    """The same tokens; numbers but for the last bits of two float64 sums. A sum in float32 is 1e-7 away."""
    for kind, logits in kinds_of_logits(n).items():
        if kind == "impossible":
            logits[0] = 1  # not all
        for token, (logprob, top) in zip((0, n - 1), full_sort.logprobs(logits, (0, n - 1), n_top), strict=True):
            told = Logprobs(logits).of(token, n_top)
            near = float(8 * np.spacing(12 + np.abs(logits[np.isfinite(logits)]).max(), dtype=np.float64))
            assert (told.token, [i for i, _ in told.top]) == (token, [i for i, _ in top]), kind
            pairs = [(told.logprob, logprob), *((a, b) for (_, a), (_, b) in zip(told.top, top, strict=True))]
            assert all(a == b or abs(a - b) <= near for a, b in pairs), kind
