"""What int8 activations cost: mean KL divergence from float32 arithmetic on the same decoded weights, beside
llama.cpp's.

The reference is our float32 mode, which tests/engine/test_parity.py holds against transformers. tanh GELU on all sides,
2,048 tokens of the sample's held-out text in windows of 256, in the campaign 8,192, llama.cpp's library live.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import llama_cpp
import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf.engine.model import load
from pythia_gguf.plan.quants import QUANTS

CONTEXT = 256
# The bound. Rounding activations the same way with 256 values to a scale, as llama.cpp does for K formats,
# costs more than with 32; formats of 32 are rounded alike, so there only the order of sums and the tables of GELU
# differ. The upper end of an interval of 95 % has to be below, so that fewer tokens let no worse ratio pass; here it is
# 0.51 for K formats and IQ4_XS, 0.84 for the others, and 1.02 for Q8_0.
MOST = 1.05


class Row(NamedTuple):
    """Logits of some tokens less the largest of each, float64, and the logarithm of the sum of their exponentials."""

    logits: np.ndarray
    log_sum: np.ndarray


def rows_of(logits: np.ndarray) -> tuple[Row, np.ndarray]:
    """The rows, and the exponentials."""
    values = np.subtract(logits, logits.max(axis=1, keepdims=True), dtype=np.float64)
    powers = np.exp(values)
    return Row(values, np.log(powers.sum(axis=1))), powers


def divergences(reference: Row, powers: np.ndarray, other: Row) -> np.ndarray:
    """KL(reference || other) of each token."""
    apart = np.einsum("tv,tv->t", powers, reference.logits - other.logits) / powers.sum(axis=1)
    return apart + other.log_sum - reference.log_sum


def of_llama_cpp(path: str, windows: list[list[int]]) -> Iterator[np.ndarray]:
    """Logits of each window."""
    theirs = llama_cpp.Llama(
        path, n_ctx=CONTEXT, n_batch=CONTEXT, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False
    )
    for window in windows:
        theirs.reset()
        theirs.eval(window)
        yield np.array(theirs.scores[: len(window)])
    theirs.close()


@pytest.mark.slow
@pytest.mark.parametrize("n_windows", [8, pytest.param(32, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("quant", [q.name for q in QUANTS.values() if q.alias_of is None])
def test_int8_costs_no_more_than_llama_cpps(quant: str, n_windows: int):
    path = nano_files()[quant]
    exact = load(path, gelu="tanh", activations="float32", cache="f32", threads=1)
    fast = load(path, gelu="tanh", threads=1)
    ids = exact.tokenizer.encode(HELDOUT.read_text("utf-8"))
    windows = [ids[at : at + CONTEXT] for at in range(0, n_windows * CONTEXT, CONTEXT)]
    mine, theirs = [], []
    for window, other in zip(windows, of_llama_cpp(str(path), windows), strict=True):
        reference, powers = rows_of(exact.logits(window))
        mine.append(divergences(reference, powers, rows_of(fast.logits(window))[0]))
        theirs.append(divergences(reference, powers, rows_of(other)[0]))
    a, b = np.concatenate(mine), np.concatenate(theirs)
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, a.size, a.size) for _ in range(300))
    ratios = sorted(a[pick].mean() / b[pick].mean() for pick in picks)
    ratio, highest = a.mean() / b.mean(), ratios[-8]
    print(f"{quant}: KL {a.mean():.3g}, llama.cpp {b.mean():.3g}, ratio {ratio:.3f} ({ratios[7]:.3f} to {highest:.3f})")
    assert ratio < highest <= MOST
    assert a.mean() > 0
