"""Measured numbers in a card: where they go, what is picked, and that the rest of the card stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.nano import HELDOUT, ROOT
from pythia_gguf import quantize, verify
from pythia_gguf.card.measured import TaskRow, is_on_bias, keep_measured, measured_section, section_of, with_measured
from pythia_gguf.files import sha256_of

NANO = ROOT / "examples" / "nano"


def entry(quant: str, size: int, ratio: float, kl: float, **more: object) -> dict:
    facts = {"file": f"x.{quant}.gguf", "quant": quant, "activations": "int8", "bytes": size, "bits_per_weight": 4.5}
    numbers = {"ppl": 20 * (1 + ratio), "ppl_error": 0.5, "ln_ratio": ratio, "ln_ratio_error": 0.001}
    return facts | numbers | {"kl_mean": kl, "kl_p999": 1.0, "same_top1": 0.9} | more


def report(*files: dict) -> dict:
    base = {"file": "x.F16.gguf", "ppl": 20.0, "ppl_error": 0.5}
    text = {"file": "t|x.txt", "windows": 4, "context": 512, "scored_tokens": 1020}
    return {"reference": base, "text": text, "gelu": "tanh", "tool_version": "0", "files": list(files)}


def test_the_smallest_file_that_is_surely_good_is_picked():
    files = (entry("Q2_K", 1, 0.05, 0.1), entry("Q4_0", 2, 0.0085, 0.02), entry("Q4_K_M", 3, 0.007, 0.01))
    section = measured_section(report(*files, entry("Q8_0", 4, 0.0001, 0.001)))
    # Q4_0's upper end, 0.0085 + 2 * 0.001, is above 1 %.
    assert "**Q4_K_M** is a good default" in section
    assert "| Q4_0 | int8 | 0.0 | 4.50 | 20.170 ± 0.500 | +0.85 % | 0.02000 | 1.000 | 90.0 % |" in section
    assert r"t\|x.txt" in section
    none_good = measured_section(report(*files[:2]))
    assert "**Q4_0** is a good default: of the 2 files measured, none is surely within 1 %" in none_good
    only_float = measured_section(report(entry("Q8_0", 4, 0.0, 0.0, activations="float32")))
    assert "good default" not in only_float


FACTS = {"file": "x.Q4_0.gguf", "activations": "int8", "gelu": "erf", "encoding": "joint"}
HARNESS = {
    "results": {
        "sciq": {"alias": "sciq", "acc,none": 0.5, "acc_stderr,none": 0.0158, "acc_norm,none": 0.25, "sample_len": 20},
        "lambada": {"perplexity,none": 9.5, "perplexity_stderr,none": "N/A", "is_ok,none": True},
    },
    "n-shot": {"sciq": 0, "lambada": 5},
    "n-samples": {"sciq": {"original": 1000, "effective": 20}, "lambada": {"original": 5, "effective": 5}},
    "config": {"limit": 20, "pythia_gguf": FACTS},
}
PYTHIA = {
    "results": {"crows_pairs_english": {"pct_stereotype": 0.6, "pct_stereotype_stderr": 0.01}},
    "config": {"num_fewshot": 0, "limit": None, "pythia_gguf": FACTS | {"activations": "float32"}},
}


def row(items: str, **more: object) -> TaskRow:
    facts = {"file": "x.Q4_0.gguf", "run": "int8, f16 cache", "gelu": "erf", "encoding": "joint", "shots": 0}
    return TaskRow(**facts | {"items": items, "task": "sciq", "metric": "acc", "value": 0.5, "stderr": 0.0158} | more)


def test_tasks_are_shown_with_what_they_are_of():
    """A run of a part beside one of all, and one kept with other keys and values: rows that tell themselves apart."""
    rows = [row("20 of 1,000"), row("1,000"), row("1,000", run="int8, f32 cache"), row("", shots=None, stderr=None)]
    rows += [row("3", task="crows_pairs_english", metric="pct")]
    section = measured_section(report(entry("Q4_0", 1, 0.0, 0.0)), [*rows, row("1,000")])
    table = section.partition("### Tasks")[2].split("|--:|\n")[1].split("\n\n")[0]
    assert table.splitlines() == [
        "| x.Q4_0.gguf | int8, f16 cache | erf | joint | 0 | 20 of 1,000 | sciq | acc | 0.5000 ± 0.0158 |",
        "| x.Q4_0.gguf | int8, f16 cache | erf | joint | 0 | 1,000 | sciq | acc | 0.5000 ± 0.0158 |",
        "| x.Q4_0.gguf | int8, f32 cache | erf | joint | 0 | 1,000 | sciq | acc | 0.5000 ± 0.0158 |",
        "| x.Q4_0.gguf | int8, f16 cache | erf | joint |  |  | sciq | acc | 0.5000 |",
        "| x.Q4_0.gguf | int8, f16 cache | erf | joint | 0 | 3 | crows_pairs_english | pct | 0.5000 ± 0.0158 |",
    ]
    assert "Tasks" not in measured_section(report(entry("Q4_0", 1, 0.0, 0.0)))
    assert (is_on_bias(rows[:4]), is_on_bias(rows)) == (False, True)


def test_advice_is_given_only_from_what_was_measured_and_from_enough_of_it():
    """What is said of reports of one file, of few tokens, of errors above what is asked, of files with a note."""
    two = (entry("Q4_0", 2, 0.0, 0.02), entry("Q8_0", 4, 0.0, 0.001))
    enough = measured_section(report(*two))
    assert "**Q4_0** is a good default: of the 2 files measured, the smallest whose perplexity" in enough
    for files, n_tokens, said in (
        (two[:1], 1020, "there is nothing to compare Q4_0 with"),
        (two, 999, "999 scored tokens are too few to tell a change of 1 % in perplexity"),
        (two, 2, "2 scored tokens are too few"),
        ([f | {"ln_ratio_error": 0.0051} for f in two], 9999, "9,999 scored tokens are too few"),
        # Far below the unquantized model's, as far as so wide an error says anything.
        ([f | {"ln_ratio": -0.5, "ln_ratio_error": 0.1} for f in two], 9999, "9,999 scored tokens are too few"),
        ([two[0], two[1] | {"note": "it runs with tanh GELU"}], 9999, "there is nothing to compare Q4_0 with"),
    ):
        data = report(*files)
        data["text"]["scored_tokens"] = n_tokens
        section = measured_section(data)
        assert f"No file is recommended: {said}" in section
        assert "good default" not in section
    assert "Note: Q8_0, int8: it runs with tanh GELU." in section
    one_is_sure = measured_section(report(two[0] | {"ln_ratio_error": 0.1}, two[1]))
    assert "**Q8_0** is a good default" in one_is_sure


def test_a_section_that_speaks_of_a_file_that_is_gone_is_not_kept():
    table = "| Name | Quant method | Size |\n|---|---|---|\n"
    both = f"# x\n\n{table}| x.Q4_0.gguf | Q4_0 | 1 |\n| x.Q8_0.gguf | Q8_0 | 2 |\n"
    one = f"# x\n\n{table}| x.Q8_0.gguf | Q8_0 | 2 |\n"
    measured = measured_section(report(entry("Q4_0", 1, 0.0, 0.0), entry("Q8_0", 2, 0.0, 0.0)))
    old = with_measured(both, measured)
    assert section_of(keep_measured(old, both)) == measured
    assert keep_measured(old, one) == one
    of_task = with_measured(both, measured_section(report(entry("Q8_0", 2, 0.0, 0.0)), [row("20")]))
    assert keep_measured(of_task, one) == one


def test_speeds_are_shown_where_they_are_known():
    fast = entry("Q4_0", 1, 0.0, 0.0, prefill_tokens_per_s=700.4, decode_tokens_per_s=120.6)
    section = measured_section(report(fast, entry("Q8_0", 2, 0.0, 0.0)))
    assert "| Reads t/s | Writes t/s |" in section
    assert "| 90.0 % | 700 | 121 |\n| Q8_0 |" in section
    assert "| 90.0 % |  |  |" in section


def test_the_section_is_replaced_and_the_rest_stays():
    card = "---\na: b\n---\n\n# x\n\n<!-- README_GGUF.md-provided-files end -->\n\n## More\n\ntext\n"
    once = with_measured(card, "## one")
    assert once.index("provided-files end") < once.index("## one") < once.index("## More")
    twice = with_measured(once, "## two")
    assert "## one" not in twice
    assert twice.replace("## two", "## one") == once
    assert with_measured("# bare\n", "## one").startswith("# bare\n\n<!--")


CARD = "# x\n\n<!-- README_GGUF.md-provided-files end -->\n\n## More\n\ntext\n"
MARKS = ("<!-- pythia-gguf measured start -->", "<!-- pythia-gguf measured end -->")


@pytest.mark.parametrize(
    "removed", [MARKS[:1], MARKS[1:], MARKS, (*MARKS, "## What each file costs")], ids=["start", "end", "both", "all"]
)
def test_a_section_without_its_marks_is_replaced_all_the_same(removed: tuple[str, ...]):
    title = "## What each file costs"
    once = with_measured(CARD, f"{title}\n\nOne.\n\n### Tasks\n\nold")
    for mark in removed:
        once = once.replace(mark, "")
    twice = with_measured(once, f"{title}\n\nTwo.")
    assert (twice.count(title), twice.count(MARKS[0]), twice.count(MARKS[1])) == (1, 1, 1)
    assert "Two." in twice and "## More\n\ntext\n" in twice
    # Without marks and title nothing tells what it was.
    assert ("old" in twice) == (title in removed)
    assert with_measured(twice, f"{title}\n\nTwo.") == twice


def test_two_sections_become_one():
    title = "## What each file costs"
    once = with_measured(CARD, f"{title}\n\nOne.")
    section = once[once.index(MARKS[0]) : once.index(MARKS[1]) + len(MARKS[1])]
    assert with_measured(once + section, f"{title}\n\nOne.").count(title) == 1


def test_line_ends_are_those_of_the_card():
    """A card with CRLF has no other after it, nor one with LF."""
    crlf = CARD.replace("\n", "\r\n")
    once = with_measured(crlf, "## one\n\n| a |")
    assert once.count("\n") == once.count("\r\n") > crlf.count("\n")
    assert once.replace("\r\n", "\n") == with_measured(CARD, "## one\n\n| a |")
    assert with_measured(once, "## one\n\n| a |") == once
    assert section_of(once) == "## one\n\n| a |"
    assert "\r" not in keep_measured(once, CARD)


def test_figures_that_do_not_exist_are_dashes():
    """A table, no advice from them, and the reason below."""
    none = dict.fromkeys(("ppl", "ppl_error", "ln_ratio", "ln_ratio_error", "kl_mean", "kl_p999", "same_top1"))
    why = "window 1: infinity or NaN at position 3"
    section = measured_section(report(entry("Q4_0", 1, 0.0, 0.0) | none | {"missing": why}))
    assert "| Q4_0 | int8 | 0.0 | 4.50 | - | - | - | - | - |" in section
    assert f"No figure: Q4_0, int8: {why}." in section
    assert "good default" not in section
    both = measured_section(report(entry("Q4_0", 1, 0.0, 0.0) | none, entry("Q8_0", 2, 0.0, 0.0)))
    assert "there is nothing to compare Q8_0 with" in both
    without_base = report(entry("Q8_0", 2, 0.0, 0.0))
    without_base["reference"] |= {"ppl": None, "ppl_error": None}
    assert "(perplexity -)" in measured_section(without_base)


def test_the_command_on_the_sample(pythia, tmp_path: Path):
    out = tmp_path / "out"
    quantize(NANO, out, quants="Q4_K_M,Q8_0", keep_f16=True)
    code, _, err = pythia(
        "measure", out, "--text", HELDOUT, "--context", "64", "--chunks", "8", "-o", out / "report.json"
    )
    assert code == 0, err
    code, _, err = pythia("plot", out / "report.json", "-o", out)
    assert code == 0, err
    code, said, err = pythia("card", out)
    assert code == 0, err
    card = (out / "README.md").read_text("utf-8")
    assert "## What each file costs" in card
    assert card.count("| Q4_K_M | int8 |") == 1
    assert "](divergence.png)" in card
    assert all(v.fault is None for v in verify(out))
    assert "not measured" not in card and "No quality was measured" not in card
    assert "was not assessed" in card
    # It may still be added to, and the section stays.
    assert len(quantize(NANO, out, quants="Q6_K").files) == 4
    added = (out / "README.md").read_text("utf-8")
    assert "nano.Q6_K.gguf" in added and "not measured" not in added
    assert section_of(added) == section_of(card)
    assert all(v.fault is None for v in verify(out))
    report = json.loads((out / "report.json").read_text("utf-8"))
    report["files"][0]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(report), "utf-8")
    (tmp_path / "no.json").write_text("[]", "utf-8")
    (tmp_path / "harness.json").write_text(json.dumps(HARNESS), "utf-8")
    sha256 = sha256_of(out / "nano.Q8_0.gguf")
    ours = HARNESS["config"] | {"pythia_gguf": FACTS | {"file": "nano.Q8_0.gguf", "sha256": sha256}}
    (out / "results-Q8_0.json").write_text(json.dumps(HARNESS | {"config": ours}), "utf-8")
    code, _, err = pythia("card", out)
    assert code == 0, err
    tasks = (out / "README.md").read_text("utf-8").partition("### Tasks")[2]
    assert "| nano.Q8_0.gguf | int8 | erf | joint | 0 | 20 of 1,000 | sciq | acc | 0.5000" in tasks
    assert "sample" not in tasks
    for arguments, wanted, message in (
        ((out, "--report", tmp_path / "other.json"), 2, "other files"),
        ((out, "--report", tmp_path / "no.json"), 65, "not a report"),
        ((out, "--results", tmp_path / "no.json"), 65, "not results of pythia eval"),
        ((out, "--results", out / "report.json"), 65, "not results of pythia eval"),
        ((out, "--results", tmp_path / "harness.json"), 2, "of x.Q4_0.gguf, which is not in this folder"),
        ((out, "--report", tmp_path / "none.json"), 74, "cannot open"),
        ((tmp_path / "nowhere",), 74, "no such folder"),
        ((NANO,), 74, "no such file. `pythia measure"),
    ):
        code, _, err = pythia("card", *arguments)
        assert (code, "Traceback" in err) == (wanted, False), err
        assert message in err


@pytest.mark.parametrize("broken", [{}, {"schema_version": 2, "files": []}, {"schema_version": 1, "files": [{}]}])
def test_what_is_no_report_is_refused(broken: dict, pythia, tmp_path: Path):
    (tmp_path / "report.json").write_text(json.dumps(broken), "utf-8")
    code, _, err = pythia("card", tmp_path)
    assert code == 65
    assert "not a report" in err
