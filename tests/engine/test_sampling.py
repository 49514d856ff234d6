"""Sampling against arithmetic done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pythia_gguf.engine.sampling import Sampler, Sampling

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
