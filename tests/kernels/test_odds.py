"""The sum behind log-probabilities, against exact sums; and its bits, which no CPU changes."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from pythia_gguf.kernels.odds import odds_sum

PROGRAM = """
import numpy as np
from pythia_gguf.kernels.odds import odds_sum
logits = np.random.default_rng(1).normal(0, 4, 50304).astype(np.float32)
print(*(odds_sum(logits[:n], float(logits.max())).hex() for n in (1, 255, 256, 257, 50304)))
"""


def logits_of(kind: str, n: int) -> np.ndarray:
    dice = np.random.default_rng(n)
    made = {
        "normal": dice.normal(0, 4, n),
        "zipf": -np.log(np.arange(1, n + 1)),
        "flat": np.full(n, -7.25),
        "far": dice.normal(0, 400, n),
        "impossible": np.where(np.arange(n) % 3 == 0, 1.5, -np.inf),
        "large": np.where(np.arange(n) == n // 2, 3e38, -3e38),
    }
    return made[kind].astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 50304])
@pytest.mark.parametrize("kind", ["normal", "zipf", "flat", "far", "impossible", "large"])
def test_sum_is_exact_to_its_last_digits(kind: str, n: int):
    """math.exp is right to one unit of 2.2e-16, math.fsum exact; partial sums of 200 numbers may add a few. In float32
    the sum is 1e-8 and more away."""
    logits = logits_of(kind, n)
    exact = math.fsum(math.exp(float(v) - float(logits.max())) for v in logits)
    assert abs(odds_sum(logits, float(logits.max())) / exact - 1) < 4e-15


def test_gaps_in_memory_change_nothing_and_other_types_are_refused():
    logits = logits_of("normal", 600)
    assert odds_sum(np.repeat(logits, 2)[::2], 20.0) == odds_sum(logits, 20.0)
    for wrong in (logits.astype(np.float64), logits[None], logits[:0]):
        with pytest.raises(ValueError, match="logits must be float32"):
            odds_sum(wrong, 20.0)


@pytest.mark.parametrize("cpu", [{"NUMBA_CPU_NAME": "haswell"}, {"NUMBA_CPU_NAME": "x86-64"}, {}], ids=str)
def test_bits_are_the_same_on_every_cpu(cpu: dict[str, str]):
    if os.uname().machine != "x86_64":
        cpu = {}
    features = {"NUMBA_CPU_FEATURES": ""} if cpu else {}
    environment = os.environ | cpu | features
    told = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    logits = np.random.default_rng(1).normal(0, 4, 50304).astype(np.float32)
    assert told.stdout.split() == [odds_sum(logits[:n], float(logits.max())).hex() for n in (1, 255, 256, 257, 50304)]
