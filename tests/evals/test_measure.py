"""The report's numbers: by hand on models of three tokens, against float64, and through killed runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pythia_gguf.errors import NotFiniteError, UsageError
from pythia_gguf.evals.measure import Candidate, measure
from pythia_gguf.evals.statistics import comparison
from pythia_gguf.json_file import json_text
from pythia_gguf.kernels.divergence import KL, NLL_CANDIDATE, NLL_REFERENCE, SAME_TOP, compare
from pythia_gguf.progress import Silence

P, Q = (0.5, 0.25, 0.25), (0.25, 0.5, 0.25)


class Fixed:
    """The same probabilities after every token; dies after so many windows."""

    n_context = 64

    def __init__(self, probabilities: Sequence[float], dies_after: int = 10**9) -> None:
        # A constant more changes no probability.
        self.row = np.log(np.array(probabilities)) + 7
        self.n_vocab = len(probabilities)
        self.n_calls, self.dies_after = 0, dies_after

    def logits(self, ids: Sequence[int], n_last: int | None = None) -> np.ndarray:
        if self.n_calls == self.dies_after:
            raise KeyboardInterrupt
        self.n_calls += 1
        return np.tile(self.row.astype(np.float32), (len(ids) if n_last is None else n_last, 1))


def candidate(model: Fixed, name: str = "x", n_bytes: int = 1) -> Candidate:
    return Candidate(
        name=name,
        label=name,
        open=lambda: model,
        n_bytes=n_bytes,
        facts={"quant": name},
        decode_speed=lambda model: model.n_calls,
    )


def run(reference: Fixed, *models: Fixed, ids: Sequence[int] = (0, 1, 2, 0) * 8, **options: object) -> dict:
    candidates = [candidate(m, f"m{i}") for i, m in enumerate(models)]
    settings: dict = {"context": 8, "n_windows": None, "memory_bytes": 100, "state": None} | options
    return measure(candidate(reference, "reference"), candidates, list(ids), progress=Silence(), **settings)


def test_values_worked_by_hand():
    report = run(Fixed(P), Fixed(Q), Fixed(P))
    # In each window of 8 the tokens 5, 6 and 7 are scored: 1, 2, 0.
    assert report["text"] == {"context": 8, "windows": 4, "scored_tokens": 12}
    other, same = report["files"]
    assert report["reference"]["ppl"] == pytest.approx(
        math.exp((math.log(4) + math.log(4) + math.log(2)) / 3), rel=1e-6
    )
    assert other["ppl"] == pytest.approx(math.exp((math.log(2) + math.log(4) + math.log(4)) / 3), rel=1e-6)
    # sum of p ln(p / q) = 0.5 ln 2 + 0.25 ln 0.5 = 0.25 ln 2, for every token.
    for key in ("kl_mean", "kl_median", "kl_p99", "kl_p999", "kl_max"):
        assert other[key] == pytest.approx(0.25 * math.log(2), abs=1e-6), key
        assert same[key] == pytest.approx(0, abs=1e-6), key
    assert (other["same_top1"], same["same_top1"]) == (0, 1)
    # Probability of the token that came: 0.25 -> 0.5, 0.25 -> 0.25, 0.5 -> 0.25.
    assert other["dp_mean"] == pytest.approx(0, abs=1e-6)
    assert other["dp_rms"] == pytest.approx(math.sqrt((0.0625 + 0.0625) / 3), rel=1e-6)
    assert other["ln_ratio"] == pytest.approx(0, abs=1e-6)
    # Standard error of twelve losses ln 2, ln 4, ln 4: 0.3267 / sqrt(11).
    deviation = math.log(2) * math.sqrt(2) / 3
    assert other["ppl_error"] == pytest.approx(other["ppl"] * deviation / math.sqrt(11), rel=1e-6)


def test_rows_against_float64():
    numbers = np.random.default_rng(3)
    for n_vocab in (50304, 1000, 33, 1):
        reference = (numbers.standard_normal((6, n_vocab)) * 3).astype(np.float32)
        close = (reference + numbers.standard_normal((6, n_vocab)) * 0.02).astype(np.float32)
        targets = numbers.integers(0, n_vocab, 6)
        rows = compare(reference, close, targets)
        r, c = reference.astype(np.float64), close.astype(np.float64)
        log_p, log_q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (r, c))
        at = np.arange(6)
        assert np.allclose(rows[:, NLL_REFERENCE], -log_p[at, targets], atol=1e-6, rtol=0)
        assert np.allclose(rows[:, NLL_CANDIDATE], -log_q[at, targets], atol=1e-6, rtol=0)
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
        # About 2e-4 here; float32 differences of log-probabilities would be off by 1e-6.
        assert np.allclose(rows[:, KL], kl, atol=3e-7, rtol=0)
        assert np.array_equal(rows[:, SAME_TOP], r.argmax(axis=1) == c.argmax(axis=1))
        wrong_way = (np.exp(log_q) * (log_q - log_p)).sum(axis=1)
        assert n_vocab == 1 or np.abs(rows[:, KL] - wrong_way).max() > 1e-7


def test_a_killed_run_goes_on(tmp_path: Path):
    state = tmp_path / "state.npz"
    whole = run(Fixed(P), Fixed(Q), Fixed(P), state=tmp_path / "other.npz")
    with pytest.raises(KeyboardInterrupt):
        run(Fixed(P), Fixed(Q, dies_after=2), Fixed(P), state=state, memory_bytes=1)
    assert not state.exists()  # two windows are no half minute
    first = run(Fixed(P), Fixed(Q), state=state)
    reference, done, more = Fixed(P), Fixed(Q), Fixed(P)
    again = run(reference, done, more, state=state)
    assert (done.n_calls, more.n_calls, reference.n_calls) == (0, 4, 4)
    assert first["files"][0]["kl_mean"] == again["files"][0]["kl_mean"]

    def numbers(report: dict) -> list[dict]:
        return [{k: v for k, v in f.items() if k != "prefill_tokens_per_s"} for f in report["files"]]

    assert numbers(again) == numbers(whole)
    # Speeds are kept too, although nothing was computed of the first one this time.
    assert again["files"][0]["prefill_tokens_per_s"] == first["files"][0]["prefill_tokens_per_s"] > 0
    assert again["files"][0]["decode_tokens_per_s"] == 4
    # Another text is another run.
    told: list[str] = []
    run(Fixed(P), done, ids=[1, 2, 0, 1] * 8, state=state, tell=told.append)
    assert done.n_calls == 4
    assert [line.endswith("is of something else: starting afresh") for line in told] == [True]


def test_a_state_is_kept_when_the_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pythia_gguf.evals import state as module

    monkeypatch.setattr(module, "_SAVED_EVERY_S", 0.0)
    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        run(Fixed(P), Fixed(Q, dies_after=3), state=state)
    rest = Fixed(Q)
    run(Fixed(P), rest, state=state)
    assert rest.n_calls == 1


def test_the_reference_is_computed_once_where_memory_suffices():
    reference, told = Fixed(P), list[str]()
    run(reference, Fixed(Q), Fixed(Q), Fixed(P), memory_bytes=3, tell=told.append)
    assert (reference.n_calls, told) == (4, [])


def test_groups_that_do_not_fit_together_compute_the_reference_again_and_say_so():
    reference, told = Fixed(P), list[str]()
    run(reference, Fixed(Q), Fixed(Q), Fixed(P), memory_bytes=2, tell=told.append)
    assert reference.n_calls == 2 * 4
    assert told == ["memory holds the reference and 2 of 3 files: the reference is computed 2 times"]


class Failing(Fixed):
    """Its logits are not finite from some window on."""

    def __init__(self, n_good: int, value: float) -> None:
        super().__init__(Q)
        self._n_good, self._value = n_good, value

    def logits(self, ids: Sequence[int], n_last: int | None = None) -> np.ndarray:
        logits = super().logits(ids, n_last)
        if self.n_calls > self._n_good:
            logits[-2, 1] = self._value
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_file_without_figures_spoils_no_other(tmp_path: Path, value: float):
    failing, whole = Failing(2, value), Fixed(Q)
    report = run(Fixed(P), failing, whole, state=tmp_path / "state.npz")
    assert report["files"][0]["missing"] == "window 3: logits are not finite"
    assert {report["files"][0][key] for key in ("ppl", "kl_mean", "kl_max", "same_top1", "dp_rms")} == {None}
    assert (failing.n_calls, whole.n_calls) == (3, 4)
    alone = run(Fixed(P), Fixed(Q))
    for key in ("ppl", "kl_mean"):
        assert report["files"][1][key] == alone["files"][0][key]
    assert report["reference"] == alone["reference"]
    json_text(report)
    # A later run tries the rest again.
    again = Fixed(Q)
    assert run(Fixed(P), again, state=tmp_path / "state.npz")["files"][0]["kl_mean"] == alone["files"][0]["kl_mean"]
    assert again.n_calls == 2


def test_a_reference_without_figures_is_one_line():
    with pytest.raises(NotFiniteError, match=r"reference: window 1: logits are not finite"):
        run(Failing(0, math.nan), Fixed(Q))


def test_a_perplexity_beyond_all_numbers_is_none_and_the_rest_stays():
    """A loss of 1,000 nats: exp(1000) is more than a float64 holds; KL and the ratio of perplexities are finite."""
    sure = Fixed(P)
    sure.row = np.array([0.0, 1000.0, 1000.0])
    report = run(sure, Fixed(Q), ids=(0,) * 32)
    assert (report["reference"]["ppl"], report["reference"]["ppl_error"]) == (None, None)
    assert "exp of the mean loss, 1000.7 nats" in report["reference"]["missing"]
    (row,) = report["files"]
    assert row["ppl"] == pytest.approx(4)
    assert row["ln_ratio"] == pytest.approx(math.log(4) - 1000 - math.log(2))
    json_text(report)


def test_differences_beyond_float32_are_none():
    far, other = Fixed(P), Fixed(P)
    far.row, other.row = np.array([3e38, -3e38, 0.0]), np.array([-3e38, 3e38, 0.0])
    (row,) = run(far, other)["files"]
    assert row["kl_mean"] is None
    assert row["missing"]
    json_text(row)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 7}, "even"),
        ({"context": 2}, "at least 4"),
        ({"context": 128}, "no window of 128"),
        ({"n_windows": 0}, "n_windows"),
        ({"context": 4, "n_windows": 1}, "two scored tokens are needed.*at least 6 for context, or more n_windows"),
        ({"context": 4, "ids": (0,) * 4}, "two scored tokens are needed.*at least 6 for context, or a longer text"),
        ({"context": 128, "ids": (0,) * 256}, "more than a model's 64"),
    ],
)
def test_wrong_options_are_named(options: dict, said: str):
    with pytest.raises(UsageError, match=said):
        run(Fixed(P), Fixed(Q), **options)


def test_models_of_another_vocabulary_are_refused():
    with pytest.raises(UsageError, match="not the same model"):
        run(Fixed(P), Fixed((0.5, 0.5)))


def test_statistics_of_a_sample():
    rows = np.zeros((1000, 6))
    rows[:, KL] = np.arange(1000)
    result = comparison(rows)
    assert result["kl_median"] == 499.5
    assert result["kl_p999"] == pytest.approx(998.001)
    assert result["kl_max"] == 999
    assert result["ppl"] == 1
