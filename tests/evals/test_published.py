"""Published scores: every accuracy is a count over its task's items with the harness's error; agreement; pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pythia_gguf.evals.plots import n_parameters
from pythia_gguf.evals.published import N_ITEMS, TASKS, agreements, final_scores, step_scores
from pythia_gguf.evals.scores import scores_of

PNG = b"\x89PNG\r\n\x1a\n"


def accuracy_error(accuracy: float, n_items: int) -> float:
    """Standard error of an accuracy over so many items, as the harness computes it."""
    return math.sqrt(accuracy * (1 - accuracy) / (n_items - 1))


def test_every_accuracy_is_a_count_and_its_error_is_the_harnesss():
    scores = [p for p in (*final_scores(), *step_scores()) if p.metric != "ppl"]
    assert len(scores) > 1000
    for p in scores:
        n = N_ITEMS[p.task]
        assert abs(p.value * n - round(p.value * n)) < 1e-6, p
        assert p.stderr == pytest.approx(accuracy_error(p.value, n), rel=1e-9), p
        # The nearest wrong formula: n in place of n - 1.
        assert p.value == 0 or p.stderr != pytest.approx((p.value * (1 - p.value) / n) ** 0.5, rel=1e-9), p


def test_what_is_there():
    final = final_scores()
    assert {p.suite for p in final} == {"v0", "v1", "opt", "bloom"}
    assert len({p.model for p in final if p.suite == "v1"}) == len({p.model for p in final if p.suite == "v0"}) == 16
    assert {p.task for p in final} == {*TASKS, "arc_easy"}
    steps = {p.step for p in step_scores() if p.suite == "v1"}
    assert {0, 1, 512, 1000, 143000} <= steps
    # EleutherAI/pythia, evals/pythia-v0/pythia-410m-deduped: LAMBADA accuracy of the last step.
    (lambada,) = [
        p.value
        for p in final
        if (p.suite, p.model, p.task, p.metric, p.shots) == ("v0", "pythia-410m-deduped", "lambada_openai", "acc", 0)
    ]
    assert lambada == 0.5109644867067727


def test_sizes_by_name():
    assert n_parameters("pythia-410m-deduped") == 405_334_016
    assert n_parameters("pythia-1b-bf16") == 1_011_781_632
    assert (n_parameters("opt-350m"), n_parameters("opt-6.7b")) == (350e6, 6.7e9)
    assert (n_parameters("bloom-560m"), n_parameters("bloom-1b7"), n_parameters("bloom-3b")) == (560e6, 1.7e9, 3e9)


def test_agreement_is_within_a_standard_error():
    results = {
        "piqa": {"acc,none": 0.6724700761697497 + 0.005, "acc_stderr,none": 0.01, "alias": "piqa"},
        "lambada_openai": {"perplexity,none": 10.9, "acc": 0.5},
        "unknown": {"acc": 0.5},
    }
    scores = scores_of({"results": results})
    found = {(a.score.task, a.score.metric): a for a in agreements(scores, "v0", "pythia-410m-deduped")}
    assert set(found) == {("piqa", "acc"), ("lambada_openai", "ppl"), ("lambada_openai", "acc")}
    assert found["piqa", "acc"].agrees
    assert found["piqa", "acc"].distance == pytest.approx(0.005 / 0.0109498, rel=1e-4)
    assert not found["lambada_openai", "acc"].agrees


@pytest.mark.parametrize(
    ("more", "items", "is_judged"),
    [
        ({}, "-", True),
        ({"n-samples": {"piqa": {"original": 1838, "effective": 1838}}}, "1,838", True),
        ({"n-samples": {"piqa": {"original": 1838, "effective": 1838}}, "config": {"limit": 9999}}, "1,838", True),
        (
            {"n-samples": {"piqa": {"original": 1838, "effective": 100}}, "config": {"limit": 100}},
            "100 of 1,838",
            False,
        ),
        # EleutherAI's layout, with and without what ours has in it.
        ({"config": {"limit": 100}}, "the first 100", False),
        (
            {"config": {"pythia_gguf": {"n-samples": {"piqa": {"original": 1838, "effective": 100}}}, "limit": 100}},
            "100 of 1,838",
            False,
        ),
        # Whole, and of other items than were published.
        ({"n-samples": {"piqa": {"original": 5, "effective": 5}}}, "5 of 1,838", False),
        ({"n-samples": {"piqa": {"original": 2000, "effective": 2000}}}, "2,000", False),
    ],
)
@pytest.mark.usefixtures("blank_pictures")
def test_a_part_of_a_task_is_not_judged_as_if_whole(pythia, tmp_path: Path, more: dict, items: str, is_judged: bool):
    """Whatever its value: here it is the published one to the last digit."""
    (piqa,) = [
        p.value
        for p in final_scores()
        if (p.suite, p.model, p.task, p.metric, p.shots) == ("v1", "pythia-410m-deduped", "piqa", "acc", 0)
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"results": {"piqa": {"acc,none": piqa}}} | more), "utf-8")
    code, out, err = pythia("plot", results, "--against", "published", "--model", "pythia-410m-deduped", "-o", tmp_path)
    assert code == 0, err
    (row,) = [line for line in out.splitlines() if line.startswith("piqa ")]
    assert items in row
    assert row.split()[-2:] == (["0.00", "yes"] if is_judged else ["-", "-"])
    assert ("not compared" in out) != is_judged


def test_two_results_are_two_tables_and_both_in_the_pictures(pythia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files of one name in two folders, and of two names: each is named, and no value is lost to the other."""
    drawn: list[list[tuple[str, float]]] = []
    monkeypatch.setattr(
        "pythia_gguf.evals.plots.plot_published",
        lambda folder, measured: drawn.append([(m.label, m.accuracy) for m in measured]) or [],
    )
    for folder, name, value in (("a", "r.json", 0.6), ("b", "r.json", 0.7), ("b", "s.json", 0.65)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(json.dumps({"results": {"piqa": {"acc,none": value}}}), "utf-8")
    options = ("--against", "published", "--model", "pythia-70m", "-o", tmp_path)
    for names in (("a/r.json", "b/r.json"), ("a/r.json", "b/r.json", "b/s.json")):
        code, out, err = pythia("plot", *(tmp_path / name for name in names), *options)
        assert code == 0, err
        labels = [name if name.endswith("r.json") else "s.json" for name in names]
        assert [line[:-1] for line in out.splitlines() if line.endswith(":")] == labels
        values = {"a/r.json": 0.6, "b/r.json": 0.7, "s.json": 0.65}
        assert drawn[-1] == [(label, values[label]) for label in labels]


def test_pictures(pythia, tmp_path: Path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"results": {"piqa": {"acc,none": 0.68}}}), "utf-8")
    code, out, err = pythia(
        "plot", results, "--against", "published", "--model", "pythia-410m-deduped-v0", "-o", tmp_path / "plots"
    )
    assert code == 0, err
    assert "piqa" in out
    names = {f"{task}.png" for task in TASKS} | {"training.png"}
    assert {p.name for p in (tmp_path / "plots").iterdir()} == names
    assert all((tmp_path / "plots" / n).read_bytes().startswith(PNG) for n in names)


@pytest.mark.parametrize(
    "shots", [{"n-shot": {"piqa": 5}}, {"config": {"num_fewshot": 5}}, {"config": {"num_fewshot": {"piqa": 5}}}]
)
@pytest.mark.usefixtures("blank_pictures")
def test_scores_with_examples_are_compared_with_such(pythia, tmp_path: Path, shots: dict):
    """In the harness's layout, in EleutherAI's, and there where tasks differ."""
    (five,) = [
        p
        for p in final_scores()
        if (p.suite, p.model, p.task, p.metric, p.shots) == ("v1", "pythia-410m-deduped", "piqa", "acc", 5)
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"results": {"piqa": {"acc": five.value}}} | shots), "utf-8")
    code, out, err = pythia("plot", results, "--against", "published", "--model", "pythia-410m-deduped", "-o", tmp_path)
    assert code == 0, err
    row = next(line.split() for line in out.splitlines() if line.startswith("piqa"))
    assert row[2:4] == [f"{five.value:.4f}"] * 2
    assert row[-2:] == ["0.00", "yes"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "nothing to draw"),
        (("RESULTS",), 2, "--against published --model"),
        (("RESULTS", "--against", "published", "--model", "pythia-71m"), 2, "Did you mean"),
        (("RESULTS", "--against", "published", "--model", "pythia-14m"), 2, "nothing in it was published"),
        (("nothing.json",), 74, "cannot open"),
        (("OTHER",), 65, "not a report of pythia measure: it lacks"),
        (("BROKEN",), 65, "not a report of pythia measure or results: not valid JSON"),
    ],
)
def test_wrong_inputs_are_one_line(arguments: tuple[str, ...], code: int, said: str, pythia, tmp_path: Path):
    files = {"RESULTS": '{"results": {"piqa": {"acc": 0.5}}}', "OTHER": "{}", "BROKEN": "{"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    given = [str(tmp_path / a) if a in files else a for a in arguments]
    got, _, err = pythia("plot", *given, "-o", tmp_path / "out")
    assert got == code, err
    assert said in err
    assert "Traceback" not in err
