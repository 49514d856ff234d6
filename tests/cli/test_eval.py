"""`pythia eval` as a person meets it: both layouts, what is told, and every wrong input as one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from engine.nano import NANO, nano_files
from evals.local_tasks import PUBLISHED, write_tasks
from patience import HANGS_S
from pythia_gguf import load
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.evals.scores import scores_of
from pythia_gguf.evals.tasks import as_json, load_tasks, pythia_layout, run_tasks

pytestmark = pytest.mark.usefixtures("tasks_read_once")
FIVE = ",".join(PUBLISHED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("eval") / "tasks")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    """Of the five tasks and one on bias, as the command makes them."""
    model = PythiaLM(load(nano_files()["Q8_0"], threads=2))
    return run_tasks(model, load_tasks([*PUBLISHED, "crows_pairs_english"], folder))


def told(pythia: Any, *args: object) -> dict[str, Any]:
    code, out, err = pythia("eval", *args, "--output-format", "json")
    assert code == 0, err
    return json.loads(out)


def test_results_are_what_lm_eval_writes(pythia, folder: Path, tmp_path: Path):
    """Keys and numbers of the file are those that the harness's own tracker writes of the same run."""
    path, out = nano_files()["Q4_K_M"], tmp_path / "results.json"
    args = (path, "--tasks", FIVE, "--include-path", folder, "--encoding", "separate", "-o", out)
    code, table, err = pythia("eval", *args)
    assert code == 0, err
    found = json.loads(out.read_text("utf-8"))
    tracker = EvaluationTracker(output_path=str(tmp_path / "theirs"))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    theirs = simple_evaluate(
        PythiaLM(load(path, threads=2), encoding="separate"),
        tasks=list(PUBLISHED),
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
        evaluation_tracker=tracker,
    )
    tracker.save_results_aggregated(theirs)
    written = json.loads(next((tmp_path / "theirs").rglob("*.json")).read_text("utf-8"))
    assert set(found) == set(written)
    for task in PUBLISHED:
        values = {k: v for k, v in written["results"][task].items() if "stderr" not in k}
        assert found["results"][task].items() >= values.items()
    environment = ("transformers_version", "lm_eval_version", "upper_git_hash")
    for key in ("versions", "n-shot", "n-samples", "higher_is_better", "configs", *environment):
        assert found[key] == written[key]
    assert found["pretty_env_info"].splitlines()[0] == written["pretty_env_info"].splitlines()[0]
    facts = found["config"]["pythia_gguf"]
    expected = {"file": path.name, "quant": "Q4_K_M", "gelu": "erf", "activations": "int8", "kv": "f16"}
    assert facts.items() >= (expected | {"encoding": "separate"}).items()
    lines = table.splitlines()
    assert lines[0].split() == ["task", "metric", "value", "stderr", "items"]
    shown = [tuple(line.split()[:2] + line.split()[4:]) for line in lines[1:-1]]
    assert shown == [(s.task, s.metric, str(found["n-samples"][s.task]["effective"])) for s in scores_of(found)]
    assert lines[-1] == f"{path.name}: int8 activations, erf GELU, separate encoding"


def test_layout_of_the_pythia_repository(pythia, folder: Path, results: dict, tmp_path: Path):
    """EleutherAI/pythia a19eecb, evals/pythia-v1/pythia-160m-deduped/zero-shot/160m-deduped_step3000.json."""
    args = (nano_files()["Q8_0"], "--tasks", f"{FIVE},crows_pairs_english", "--include-path", folder)
    out = tmp_path / "nano_step1170.json"
    found = told(pythia, *args, "--layout", "pythia", "-o", out)
    assert found == json.loads(out.read_text("utf-8")) == json.loads(as_json(pythia_layout(results)))
    assert list(found) == ["results", "versions", "config"]
    accuracies = ["acc", "acc_stderr", "acc_norm", "acc_norm_stderr"]
    assert {task: list(metrics) for task, metrics in found["results"].items()} == {
        "lambada_openai": ["ppl", "ppl_stderr", "acc", "acc_stderr"],
        "piqa": accuracies,
        "winogrande": accuracies[:2],
        "arc_challenge": accuracies,
        "sciq": accuracies,
        "crows_pairs_english": [
            f"{metric}{end}" for metric in ("likelihood_difference", "pct_stereotype") for end in ("", "_stderr")
        ],
    }
    assert found["results"]["lambada_openai"]["ppl"] == results["results"]["lambada_openai"]["perplexity,none"]
    assert found["versions"] == dict.fromkeys([*PUBLISHED, "crows_pairs_english"], 1)
    theirs = {"model", "model_args", "num_fewshot", "batch_size", "device", "no_cache", "limit", "bootstrap_iters"}
    assert set(found["config"]) == theirs | {"description_dict", "pythia_gguf"}
    assert (found["config"]["num_fewshot"], found["config"]["limit"]) == (0, None)


@pytest.mark.parametrize("layout", [lambda results: results, pythia_layout], ids=["harness", "pythia"])
@pytest.mark.usefixtures("blank_pictures")
def test_plot_compares_both_layouts_with_the_published_scores(pythia, results: dict, tmp_path: Path, layout: Any):
    file = tmp_path / "results.json"
    file.write_text(as_json(layout(results)), "utf-8")
    code, table, err = pythia("plot", file, "--against", "published", "--model", "pythia-70m", "-o", tmp_path / "plots")
    assert code == 0, err
    compared = {tuple(line.split()[:2]): line.split()[2] for line in table.splitlines()[1:10]}
    expected = {(s.task, s.metric): s.value for s in scores_of(results) if s.task in PUBLISHED}
    expected["lambada_openai", "ppl"] = expected.pop(("lambada_openai", "perplexity"))
    assert compared == {key: f"{value:.4f}" for key, value in expected.items()}


def test_shots_and_limit_are_those_asked_for(pythia, folder: Path):
    args = (nano_files()["Q8_0"], "--tasks", "sciq, arc_challenge", "--include-path", folder)
    found = told(pythia, *args, "--num-fewshot", "2", "--limit", "3")
    assert found["n-shot"] == {"sciq": 2, "arc_challenge": 2}
    assert {n["effective"] for n in found["n-samples"].values()} == {3}


def test_groups_and_patterns_are_tasks_too(pythia, tmp_path: Path):
    """A group of the folder has a mean of its own; each of its tasks runs once."""
    own = write_tasks(tmp_path / "tasks")
    group = "group: questions\ntask: [piqa, sciq]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (own / "questions.yaml").write_text(group, "utf-8")
    args = (nano_files()["Q8_0"], "--tasks", "questions,winogra?de,winogrande", "--include-path", own)
    code, table, err = pythia("eval", *args)
    assert code == 0, err
    found = [tuple(line.split()[:2]) for line in table.splitlines()[1:-1]]
    assert sorted(found) == sorted(
        [("questions", "acc"), ("winogrande", "acc"), *((t, m) for t in ("piqa", "sciq") for m in ("acc", "acc_norm"))]
    )
    (piqa, sciq, both) = (
        float(next(line for line in table.splitlines() if line.startswith(name)).split()[2])
        for name in ("piqa", "sciq", "questions")
    )
    assert both == pytest.approx((4 * piqa + 5 * sciq) / 9, abs=1e-4)  # items of each


def test_a_hugging_face_folder_is_pressed_to_f16(pythia, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(tmp_path))
    found = told(pythia, NANO, "--tasks", "piqa", "--include-path", folder)
    assert found["config"]["pythia_gguf"].items() >= {"file": "nano.F16.gguf", "activations": "float32"}.items()
    by_hand = run_tasks(PythiaLM(load(nano_files()["F16"], threads=2)), load_tasks(["piqa"], folder))
    assert found["results"] == by_hand["results"]


def test_tasks_run_without_torch_and_transformers(folder: Path):
    """As who installs the extra has it. A process of its own, in which both are not to be found."""
    code = (
        "import importlib.machinery, sys\n"
        "finder = importlib.machinery.PathFinder\n"
        "found = finder.find_spec\n"
        "finder.find_spec = lambda name, *a: None if name in ('torch', 'transformers') else found(name, *a)\n"
        "sys.argv = ['pythia', 'eval', *sys.argv[1:]]\n"
        "from pythia_gguf.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    args = [nano_files()["Q8_0"], "--tasks", "piqa,nq_open", "--include-path", folder, "--output-format", "json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "USE_TORCH": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["results"]) == {"piqa", "nq_open"}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--tasks", "piqa", "--num-fewshot", "-1"), 2, "--num-fewshot must be at least 0, got -1"),
        (("--tasks", "piqa", "--limit", "0"), 2, "--limit must be at least 1, got 0"),
        (("--tasks", " ,"), 2, "--tasks names no task"),
        ((), 2, "Missing option '--tasks'"),
        (("--tasks", "piqa", "--encoding", "jont"), 2, "'jont' is not one of"),
        (("--tasks", "piqa", "--layout", "x"), 2, "'x' is not one of"),
        (("--tasks", "piqa", "--include-path", "none"), 74, "none: no such folder"),
        (("--tasks", "piqa", "-o", "none/results.json"), 74, "not a file in a folder that exists"),
        (("--tasks", "piqa", "-o", "tests"), 74, "not a file in a folder that exists"),
        (("--tasks", "gsm8k", "--include-path", "FOLDER", "--num-fewshot", "9"), 2, "more examples than there are"),
    ],
)
def test_wrong_input_is_one_line(pythia, folder: Path, args: tuple[str, ...], code: int, said: str):
    given = [str(folder) if a == "FOLDER" else a for a in args]
    found, out, err = pythia("eval", nano_files()["Q8_0"], *given)
    assert (found, out) == (code, ""), err
    assert said in err
    assert "Traceback" not in err


def test_an_item_is_no_example_of_itself(pythia, tmp_path: Path):
    """Five items that are the examples too: four for each."""
    own = write_tasks(tmp_path / "tasks")
    path = own / "sciq.yaml"
    path.write_text(path.read_text("utf-8") + "fewshot_split: test\n", "utf-8")
    args = (nano_files()["Q8_0"], "--tasks", "sciq", "--include-path", own, "--limit", "2", "--num-fewshot")
    assert told(pythia, *args, "4")["n-shot"] == {"sciq": 4}
    code, out, err = pythia("eval", *args, "5")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "Error: task sciq: --num-fewshot 5, more examples than there are: 4"


def test_unknown_tasks_are_answered_with_the_nearest(pythia):
    code, out, err = pythia("eval", nano_files()["Q8_0"], "--tasks", "sciq,lambada_opnai")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "no task 'lambada_opnai'. Did you mean lambada_openai" in err


def test_no_network_for_the_data_is_one_line(pythia, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    code, out, err = pythia("eval", nano_files()["Q8_0"], "--tasks", "sciq")
    assert (code, out) == (69, "")
    assert err.splitlines()[-1].startswith("Error: sciq: no data (Couldn't reach 'allenai/sciq' on the Hub")


def test_tasks_that_run_code_are_refused(pythia, folder: Path, tmp_path: Path):
    own = write_tasks(tmp_path / "tasks")
    path = own / "nq_open.yaml"
    path.write_text(path.read_text("utf-8") + "unsafe_code: true\n", "utf-8")
    code, out, err = pythia("eval", nano_files()["Q8_0"], "--tasks", "nq_open", "--include-path", own)
    assert (code, out) == (2, "")
    assert "task nq_open runs code that the model wrote" in err


def test_data_that_is_not_there_is_one_line(pythia, tmp_path: Path):
    own = write_tasks(tmp_path / "tasks")
    (own / "sciq.jsonl").unlink()
    code, out, err = pythia("eval", nano_files()["Q8_0"], "--tasks", "sciq", "--include-path", own)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: sciq: cannot be loaded: FileNotFoundError")


def test_without_lm_eval_it_is_named(pythia, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    code, out, err = pythia("eval", nano_files()["Q8_0"], "--tasks", "sciq")
    assert (code, out) == (2, "")
    assert 'tasks need lm_eval: pip install "pythia-gguf[eval]"' in err
    assert err.count("\n") == 1
