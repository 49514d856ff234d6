"""A run goes on to the same bits wherever it ended, any other command takes it, and its steps can be done again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patience import HANGS_S
from pythia_gguf.errors import ModelFileError, NotFiniteError, UsageError
from pythia_gguf.train.checkpoints import between, newest_state, states_in
from pythia_gguf.train.options import TrainOptions
from pythia_gguf.train.recipe import Recipe
from pythia_gguf.train.replaying import replay
from pythia_gguf.train.run_log import Line, RunLog, read_log
from pythia_gguf.train.training import Quiet, train

from .small import corpus, recipe

OPTIONS = TrainOptions(micro=3, threads=1, keep_states=0)  # 8 rows in pieces of 3, 3 and 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def whole(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    made = recipe(precision=request.param)
    train(made, run, data=data, options=OPTIONS)
    return made, run


def files_of(run: Path) -> dict[str, bytes]:
    """Everything but times and places."""
    found = {p.relative_to(run).as_posix(): p.read_bytes() for p in run.rglob("step*/*") if p.name != "training.json"}
    lines = [(n, line.loss, line.gradient_norm, line.digest) for n, line in sorted(read_log(run).items())]
    return found | {"log": json.dumps(lines).encode()}


class EndAt(Quiet):
    """Ends the run after a step, once."""

    def __init__(self, step: int) -> None:
        self.at, self.said = step, [""]

    def step(self, line: Line, n_left: int) -> None:
        if line.step == self.at:
            self.at = 0
            raise KeyboardInterrupt

    def tell(self, line: str) -> None:
        self.said.append(line)


def test_what_a_run_consists_of(whole: tuple[Recipe, Path], data: Path):
    made, run = whole
    assert sorted(p.name for p in run.iterdir()) == sorted(
        ["log.csv", "recipe.yaml", *(f"step{n}" for n in (0, 1, 2, 4, 8, 12))]
    )
    log = read_log(run)
    assert list(log) == list(range(1, 13))
    assert [(line.first_row, line.last_row) for line in log.values()] == [(8 * n, 8 * n + 7) for n in range(12)]
    assert [line.rate for line in log.values()] == [made.rate(n) for n in range(12)]
    assert log[12].loss < log[1].loss - 0.3
    told = json.loads((run / "step8" / "training.json").read_text())
    assert (told["step"], told["n_updates"], told["digest"]) == (8, 8, log[8].digest)
    # Rate 0: the weights of step 1 are those of step 0.
    zero, one = ((run / f"step{n}" / "model.safetensors").read_bytes() for n in (0, 1))
    assert zero == one


@pytest.mark.parametrize("at", range(1, 12))
def test_a_run_that_ended_after_any_step_has_the_same_bits(
    at: int, whole: tuple[Recipe, Path], data: Path, tmp_path: Path
):
    made, expected = whole
    watcher = EndAt(at)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "run", data=data, options=OPTIONS, watcher=watcher)
    assert sorted(read_log(tmp_path / "run")) == list(range(1, at + 1))
    train(made, tmp_path / "run", data=data, options=OPTIONS, watcher=watcher)
    assert files_of(tmp_path / "run") == files_of(expected)
    assert not any("other weights" in line for line in watcher.said)


def killed(made: Recipe, run: Path, data: Path, step: int, rng: random.Random) -> None:
    """Train in another process, and kill it while it works on the step after one."""
    code = (
        "import sys, threading\n"
        "from pythia_gguf.train.training import *\n"
        "from pythia_gguf.train.recipe import read_recipe\n"
        "class Tell(Quiet):\n"
        "    def step(self, line, n_left):\n"
        "        print(line.step, flush=True)\n"
        "options = TrainOptions(micro=3, threads=1, keep_states=2, save_every_s=0.001)\n"
        "train(read_recipe(sys.argv[1]), sys.argv[2], data=sys.argv[3], options=options, watcher=Tell())\n"
    )
    path = run.with_suffix(".yaml")
    path.write_text(made.as_yaml())
    process = subprocess.Popen([sys.executable, "-c", code, path, run, data], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            break
    wait = rng.random() * 0.03
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=HANGS_S)


@pytest.mark.parametrize("n_kills", [1, pytest.param(20, marks=pytest.mark.campaign)])
def test_killed_runs_have_the_same_bits(n_kills: int, whole: tuple[Recipe, Path], data: Path, tmp_path: Path):
    """SIGKILL in the middle of steps and checkpoints, with a state saved after every step."""
    made, expected = whole
    rng = random.Random(n_kills)
    run = tmp_path / "run"
    for step in sorted(rng.choices(range(1, 12), k=n_kills)):
        killed(made, run, data, step, rng)
    train(made, run, data=data, options=OPTIONS)
    found = {n: d for n, d in files_of(run).items() if "training.safetensors" not in n}
    assert found == {n: d for n, d in files_of(expected).items() if "training.safetensors" not in n}
    assert not [p for p in run.iterdir() if "unfinished" in p.name and p.name != ".between"]


def test_a_damaged_checkpoint_is_skipped(whole: tuple[Recipe, Path], data: Path, tmp_path: Path):
    made, expected = whole
    for name in ("model.safetensors", "training.safetensors", "config.json", "training.json"):
        run = tmp_path / name
        shutil.copytree(expected, run)
        path = run / "step12" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        watcher = EndAt(0)
        if name == "training.json":
            path.write_bytes(content[:40])
        train(made, run, data=data, options=OPTIONS, watcher=watcher)
        assert f"step12/{name}" in watcher.said[1] and watcher.said[1].endswith("An earlier checkpoint is taken")
        assert watcher.said[2] == "going on after step8"
        assert files_of(run) == files_of(expected)


def test_old_states_are_dropped(data: Path, tmp_path: Path):
    options = TrainOptions(micro=3, threads=1, keep_states=2, save_every_s=1e-9)
    train(recipe(), tmp_path / "run", data=data, options=options)
    assert [folder.name for folder in states_in(tmp_path / "run")] == ["step12", "step8"]
    assert not list(between(tmp_path / "run").iterdir())
    assert (tmp_path / "run" / "step4" / "model.safetensors").is_file()
    found = newest_state(tmp_path / "run", 12)
    assert found is not None and found[0].name == "step8"


def test_a_replayed_step_is_recognized_and_a_wrong_one_is_not(whole: tuple[Recipe, Path], data: Path, tmp_path: Path):
    _, expected = whole
    run = tmp_path / "run"
    shutil.copytree(expected, run)
    for step, before in ((1, 0), (6, 4), (8, 4), (12, 8)):
        done = replay(run, step, options=OPTIONS)
        assert (done.is_same, done.before) == (True, before)
        assert done.logged is not None and done.found.loss == done.logged.loss
        assert (done.checkpoint is not None) == (step in (1, 8, 12))
    # Step 8 with the weights of step 4, as in the branches of pythia-2.8b that hold another step's weights.
    told = json.loads((run / "step8" / "training.json").read_text())
    other = json.loads((run / "step4" / "training.json").read_text())
    (run / "step8" / "training.json").write_text(json.dumps(told | {"digest": other["digest"]}))
    assert not replay(run, 8, options=OPTIONS).is_same
    # One bit of a log.
    lines = (run / "log.csv").read_text().splitlines()
    digest = read_log(run)[6].digest
    changed = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    (run / "log.csv").write_text("\n".join(lines).replace(digest, changed) + "\n")
    assert not replay(run, 6, options=OPTIONS).is_same
    with pytest.raises(UsageError, match="step must be between 1 and 12, got 13"):
        replay(run, 13, options=OPTIONS)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    """A rate of 10 drives weights to infinity; the rows of the batch are named."""
    with pytest.raises(NotFiniteError, match=r"step \d+: loss .*: the training stops. It saw rows (\d+) to (\d+)"):
        train(recipe(peak_rate=10.0, clip=1e9, init="normal", steps=400, decay_steps=400, warmup=0.0, weight_decay=10.0,
                     beta2=0.0, beta1=0.0, epsilon=1e-30),
              tmp_path / "run", data=corpus(tmp_path / "c"), options=replace(OPTIONS, dtype="float32"))  # fmt: skip


def test_what_does_not_fit_is_one_line(whole: tuple[Recipe, Path], data: Path, tmp_path: Path):
    from pythia_gguf.data.order import make_order

    made, run = whole
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (recipe(vocabulary=100), {}, UsageError, "id .* of the data, of a vocabulary of 100"),
        (recipe(precision="float16"), {}, UsageError, "precision float16 needs a GPU"),
        (made, {"options": TrainOptions(device="cuda")}, UsageError, "device: torch finds no GPU here"),
        (made, {"options": TrainOptions(dtype="int8")}, UsageError, "dtype must be one of float16, bfloat16, float32"),
        (made, {"options": TrainOptions(micro=0)}, UsageError, "micro must be at least 1, got 0"),
        (made, {"data": tmp_path / "nothing"}, Exception, "nothing.idx: no such file"),
    ]
    for of, changes, kind, says in cases:
        with pytest.raises(kind, match=says):
            train(of, tmp_path / "new", **{"data": data, "options": OPTIONS} | changes)
    for changes, says in (
        ({"resume": "never"}, "holds a run already"),
        ({"recipe": recipe(precision=made.precision, peak_rate=0.5)}, "another recipe: peak_rate 0.01, now 0.5"),
        ({"data": corpus(tmp_path / "other", seed=8)}, "is a run over other data"),
    ):
        words = {"recipe": made, "data": data, "options": OPTIONS} | changes
        with pytest.raises(UsageError, match=says):
            train(words.pop("recipe"), run, **words)
    others = corpus(tmp_path / "ordered")
    make_order(others, steps=12, batch=8, seed=99, context=32)
    with pytest.raises(UsageError, match="no order for 12 steps of 8 rows of 33 tokens, seed 5 .* seed 99. Make it"):
        train(made, tmp_path / "new2", data=others, options=OPTIONS)


def test_a_log_that_was_cut_is_read_up_to_there(whole: tuple[Recipe, Path], tmp_path: Path):
    _, run = whole
    text = (run / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text[:-10])
    assert list(read_log(tmp_path)) == list(range(1, 12))
    with RunLog(tmp_path, 5) as log:
        assert list(log.later) == list(range(6, 12))
    assert (tmp_path / "log.csv").read_text() == "".join(text.splitlines(keepends=True)[:6])
    (tmp_path / "log.csv").write_text("a,b\n")
    with pytest.raises(ModelFileError, match="expected the columns step, first_row"):
        read_log(tmp_path)


def test_torch_is_as_it_was(tmp_path: Path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(recipe(steps=1, decay_steps=1), tmp_path / "run", data=corpus(tmp_path / "c"), options=OPTIONS)
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
