"""The checkpoints of a run, by what they have seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.loopback import LoopbackHub
from pythia_gguf.errors import UsageError
from pythia_gguf.hub.suite import MODELS
from pythia_gguf.models.checkpoints import around, find_checkpoints


def test_the_suites_steps_need_no_network():
    made = find_checkpoints("pythia-70m-deduped:Q8_0")
    assert len(made) == 154
    assert made[2].name == "EleutherAI/pythia-70m-deduped@step2:Q8_0"
    assert [c.n_rows for c in made[:4]] == [0, 1024, 2048, 4096] and made[-1].n_rows == 143_000 * 1024


def test_a_row_lies_between_two_checkpoints():
    """Row 1,024 N is the first that step N has not seen: checkpoint N is before it, N + 1 after it."""
    made = find_checkpoints("pythia-70m")
    for row, before, after in ((0, "step0", "step1"), (1023, "step0", "step1"), (1024, "step1", "step2"),
                               (512 * 1024, "step512", "step1000"), (1000 * 1024 - 1, "step512", "step1000"),
                               (1000 * 1024, "step1000", "step2000")):  # fmt: skip
        found = around(made, row)
        assert tuple(c and c.branch for c in found) == (before, after)
    assert around(made, 143_000 * 1024)[1] is None


def test_v0_of_three_sizes_counts_twice():
    """Branch step2000 of theirs is update 1,000, of 2,048 rows; whatever `batch` says."""
    made = {c.branch: c.n_rows for c in find_checkpoints("pythia-410m-v0", batch=2048)}
    assert made["step2000"] == 1000 * 2048 == made["step1000"] * 2
    assert around(find_checkpoints("pythia-410m-v0"), 5)[0] is None
    assert len(made) == len(MODELS["pythia-410m-v0"].steps)


def test_runs_of_ones_own(tmp_path: Path, hub: LoopbackHub):
    for n in (0, 4, 16):
        (tmp_path / "run" / f"step{n}").mkdir(parents=True)
    made = find_checkpoints(f"{tmp_path / 'run'}:Q4_0", batch=8)
    assert [(c.name, c.n_rows) for c in made] == [(f"{tmp_path / 'run'}@step{n}:Q4_0", 8 * n) for n in (0, 4, 16)]
    assert [c.n_rows for c in find_checkpoints(tmp_path / "run", batch=2)] == [0, 8, 32]
    hub.add("me/run", {"config.json": b"{}"})
    for n in (3, 20):
        hub.repos["me/run"][f"step{n}"] = {"config.json": b"{}"}
    assert [c.name for c in find_checkpoints("me/run:Q8_0")] == ["me/run@step3:Q8_0", "me/run@step20:Q8_0"]


def test_what_is_no_run_is_one_line(tmp_path: Path, hub: LoopbackHub):
    hub.add("me/plain", {"config.json": b"{}"})
    for given, says in (
        (tmp_path, "no folder stepN here"),
        ("pythia-70m@step4", "all steps are looked at. Give EleutherAI/pythia-70m without one"),
        ("me/plain", "none of its branches is called stepN"),
        ("pythia-71m", "no such folder, and as a name: no model .* Did you mean pythia-70m"),
    ):
        with pytest.raises(UsageError, match=says):
            find_checkpoints(given)
    with pytest.raises(UsageError, match="batch must be between 1 and"):
        find_checkpoints("pythia-70m", batch=0)
