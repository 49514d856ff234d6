"""Scores out of results in both layouts: metrics and nothing else, each with its items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.nano import nano_files
from evals.local_tasks import write_tasks
from pythia_gguf import load
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.evals.scores import Items, items_of, scores_of
from pythia_gguf.evals.tasks import load_tasks, pythia_layout, run_tasks

pytestmark = pytest.mark.usefixtures("tasks_read_once")
GROUP = "group: questions\ntask: [piqa, sciq]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"


@pytest.fixture(scope="module")
def model() -> PythiaLM:
    return PythiaLM(load(nano_files()["Q8_0"], threads=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks, and a group of two of them."""
    made = write_tasks(tmp_path_factory.mktemp("scores") / "tasks")
    (made / "questions.yaml").write_text(GROUP, "utf-8")
    return made


@pytest.fixture(scope="module", params=[None, 3])
def results(request: pytest.FixtureRequest, model: PythiaLM, folder: Path) -> dict[str, Any]:
    """Of a group, of its tasks and of others, whole and in part."""
    return run_tasks(model, load_tasks(["questions", "lambada_openai"], folder), limit=request.param)


@pytest.mark.parametrize("layout", [lambda results: results, pythia_layout], ids=["harness", "pythia"])
def test_every_score_is_a_metric_of_its_task_with_its_items(results: dict[str, Any], layout: Any):
    """Metrics are those that the task itself lists; items those that the harness counts."""
    limit = results["config"]["limit"]
    n_items = {"piqa": 4, "sciq": 5, "questions": 9, "lambada_openai": 5}
    asked = {task: n if limit is None else min(n, limit) for task, n in n_items.items()}
    asked["questions"] = asked["piqa"] + asked["sciq"]
    metrics = {
        task: {entry["metric"] for entry in config["metric_list"]} for task, config in results["configs"].items()
    } | {"questions": {"acc"}}
    found = scores_of(layout(results))
    assert {score.task for score in found} == set(n_items)
    for score in found:
        name = score.metric.partition(",")[0]
        assert name in metrics[score.task] or (score.task, name) == ("lambada_openai", "ppl")
        assert (score.items.asked, score.items.whole) == (asked[score.task], n_items[score.task])
        assert score.items.is_part == (asked[score.task] < n_items[score.task])
    assert [(s.value, s.stderr, s.shots) for s in found] == [(s.value, s.stderr, s.shots) for s in scores_of(results)]
    assert {s.shots for s in found if s.task != "questions"} == {0}


def test_what_is_no_metric_is_none_whatever_it_is_called():
    """The harness's own keys of today, and one of tomorrow."""
    own = {"alias": "x", "name": "x", "sample_len": 12, "sample_count": {"acc,none": 12}, "n_tokens": 7, " ": " "}
    results = {"results": {"x": own | {"acc,none": 0.5, "acc_stderr,none": 0.1, "f1,best": 0.25}}}
    assert [(s.metric, s.value, s.stderr) for s in scores_of(results)] == [("acc", 0.5, 0.1), ("f1,best", 0.25, None)]
    old = {"results": {"x": {"acc": 0.5, "acc_stderr": 0.1, "ppl": 9.5, "f1,best": 0.25}}}
    assert [s.metric for s in scores_of(old)] == ["acc", "ppl", "f1,best"]


@pytest.mark.parametrize(
    ("more", "said", "is_part"),
    [
        ({}, "", False),
        ({"config": {"limit": 20}}, "the first 20", True),
        ({"config": {"limit": 20}, "n-samples": {"x": {"original": 1838, "effective": 20}}}, "20 of 1,838", True),
        ({"config": {"limit": 5000}, "n-samples": {"x": {"original": 1838, "effective": 1838}}}, "1,838", False),
        ({"config": {"limit": 9, "pythia_gguf": {"n-samples": {"x": {"original": 9, "effective": 9}}}}}, "9", False),
        ({"n-samples": {"x": {"original": "many"}}, "config": None}, "", False),
        ({"group_subtasks": {"x": ["y"], "y": ["x"]}}, "", False),
    ],
)
def test_items_are_said_as_far_as_they_are_known(more: dict[str, Any], said: str, is_part: bool):
    items = items_of({"results": {"x": {"acc": 0.5}}} | more)["x"]
    assert (str(items), items.is_part) == (said, is_part)


def test_items_of_which_the_whole_is_not_known():
    assert str(Items(asked=5, whole=None, limit=None)) == "5"
