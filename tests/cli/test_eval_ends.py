"""`pythia eval` of several tasks: all are checked before the first request, and what is done is not lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from engine.nano import nano_files
from evals.local_tasks import write_tasks
from patience import HANGS_S
from pythia_gguf import load
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.evals.tasks import load_tasks, run_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks of the tests, and some that cannot run here."""
    made = write_tasks(tmp_path_factory.mktemp("eval") / "tasks")
    for name, options in {
        "beams": {"num_beams": 4},
        "long": {"max_gen_toks": 4096},
        "odd": {"penalty_alpha": 0.6},
        "text": {"max_gen_toks": "many"},
        "cold": {"do_sample": True, "temperature": 0},
    }.items():
        task = yaml.safe_load((made / "nq_open.yaml").read_text("utf-8"))
        kwargs = {"until": ["\n"], **options}
        (made / f"{name}.yaml").write_text(yaml.safe_dump(task | {"task": name, "generation_kwargs": kwargs}), "utf-8")
    # The continuation of one item is longer than the context.
    rows = [{"goal": "Say it", "sol1": "a" + " word" * 3000, "sol2": "b", "label": 0}]
    (made / "endless.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    task = yaml.safe_load((made / "piqa.yaml").read_text("utf-8"))
    task["dataset_kwargs"]["data_files"] = dict.fromkeys(("train", "validation"), str(made / "endless.jsonl"))
    (made / "endless.yaml").write_text(yaml.safe_dump(task | {"task": "endless"}), "utf-8")
    return made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("beams", "num_beams must be 1"),
        ("long", "max_gen_toks 4096 leaves no room in the context of 512"),
        ("odd", "cannot ask for penalty_alpha"),
        ("text", "options of generation cannot be used"),
        ("cold", "needs a temperature above 0"),
    ],
)
def test_options_of_every_task_are_known_before_the_first_request(
    pythia, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
):
    def scored(*arguments: object) -> None:
        raise AssertionError("a request came first")

    monkeypatch.setattr("pythia_gguf.evals.harness.score_requests", scored)
    options = ("--tasks", f"piqa,{name}", "--include-path", folder, "-o", tmp_path / "results.json")
    code, out, err = pythia("eval", nano_files()["Q8_0"], *options)
    assert (code, out) == (2, ""), err
    assert said in err.splitlines()[-1] and f"task {name}" in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_written_and_shown_when_a_later_task_fails(pythia, folder: Path, tmp_path: Path):
    path, alone = tmp_path / "results.json", tmp_path / "alone.json"
    model = nano_files()["Q8_0"]
    code, _, err = pythia("eval", model, "--tasks", "piqa", "--include-path", folder, "-o", alone)
    assert code == 0, err
    code, out, err = pythia("eval", model, "--tasks", "piqa,endless", "--include-path", folder, "-o", path)
    assert code == 2
    assert err.splitlines()[-1].startswith("Error: a continuation of ")
    assert err.splitlines()[-1].endswith("(task endless)")
    found, expected = (json.loads(p.read_text("utf-8")) for p in (path, alone))
    assert found["results"] == expected["results"]
    assert "\npiqa " in out and "endless" not in out
    # Results that are there stay as they are.
    kept = path.read_bytes()
    code, out, err = pythia("eval", model, "--tasks", "piqa,endless", "--include-path", folder, "-o", path)
    assert (code, path.read_bytes()) == (2, kept)
    assert "\npiqa " in out


def test_tasks_one_after_the_other_are_one_run(folder: Path):
    """Every key of a run of two tasks is that of the harness's own run of both."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    names = ["piqa", "sciq"]
    lm = PythiaLM(load(nano_files()["Q8_0"], threads=2))
    heard: list[list[str]] = []
    ours = run_tasks(lm, load_tasks(names, folder), hear=lambda results: heard.append(sorted(results["results"])))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = simple_evaluate(lm, tasks=names, task_manager=manager, bootstrap_iters=1000, log_samples=False)
    assert heard == [["piqa"], ["piqa", "sciq"]]
    for key in ("results", "versions", "n-shot", "n-samples", "higher_is_better", "group_subtasks"):
        assert ours[key] == theirs[key], key


def test_results_are_not_lost_unasked(pythia, folder: Path, tmp_path: Path):
    path = tmp_path / "results.json"

    def run(tasks: str, *options: object, model: str = "Q8_0") -> tuple[int, str]:
        given = ("--tasks", tasks, "--include-path", folder, "-o", path, *options)
        code, _, err = pythia("eval", nano_files()[model], *given)
        return code, err

    assert run("piqa,sciq")[0] == 0
    kept = path.read_bytes()
    for arguments, said in (
        ({"tasks": "piqa"}, "is of more tasks: sciq"),
        ({"tasks": "piqa,sciq", "model": "Q4_0"}, "is about another model or another way to run it"),
    ):
        code, err = run(**arguments)
        assert (code, path.read_bytes()) == (74, kept)
        assert f"{path} exists and {said}" in err and "--force" in err
    for option in (("--limit", "1"), ("--num-fewshot", "1"), ("--kv", "f32"), ("--gelu", "tanh")):
        assert run("piqa,sciq", *option)[0] == 74
    assert run("sciq", "--force")[0] == 0
    assert set(json.loads(path.read_text("utf-8"))["results"]) == {"sciq"}
    assert run("sciq,piqa")[0] == 0


def test_git_tells_nothing_of_a_folder_that_is_none_of_its_own(folder: Path, tmp_path: Path):
    program = [sys.executable, "-m", "pythia_gguf", "eval", nano_files()["Q8_0"], "--tasks", "piqa"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*map(str, program), "--include-path", folder],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=HANGS_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fatal" not in done.stderr and "git" not in done.stderr
