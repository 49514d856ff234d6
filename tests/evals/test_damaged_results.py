"""Reports and results that are not as they were written: `card` and `plot` say so in one line or take them, a thousand
mutants of each, and every key that they use."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from card.test_measured import HARNESS, PYTHIA
from engine.nano import NANO
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError, PythiaGGUFError
from pythia_gguf.evals.plots import _against_bits
from pythia_gguf.evals.published import agreements
from pythia_gguf.evals.report import read_report, read_results
from pythia_gguf.evals.scores import scores_of
from pythia_gguf.files import sha256_of

FILE = {"file": "nano.Q4_0.gguf", "quant": "Q4_0", "activations": "int8", "gelu": "erf", "bits_per_weight": 4.9}
FIGURES = {"ppl": 9.5, "ppl_error": 0.5, "ln_ratio": 0.01, "ln_ratio_error": 0.001, "kl_mean": 0.02, "kl_error": 0.001}
BASE = {"file": "nano.F16.gguf", "quant": "F16", "ppl": 9.4, "ppl_error": 0.5}
ROW = FILE | FIGURES | {"kl_p999": 0.3, "same_top1": 0.9, "prefill_tokens_per_s": 100.5, "decode_tokens_per_s": 9.5}


QUANTS = ("Q4_0", "Q8_0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "nano-GGUF"
    quantize(NANO, folder, quants="Q4_0,Q8_0")
    return folder


def of_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path), "kv": "f16"}


@pytest.fixture
def report(made: Path) -> dict[str, Any]:
    rows = [
        ROW | {"file": f"nano.{q}.gguf", "quant": q, "note": "odd"} | of_file(made / f"nano.{q}.gguf") for q in QUANTS
    ]
    text = {"file": "t.txt", "sha256": "0" * 64, "context": 64, "windows": 2, "scored_tokens": 62, "tokens": 200}
    head = {"schema_version": 1, "tool": "pythia-gguf", "tool_version": "0", "gelu": "erf"}
    return head | {"reference": BASE, "text": text, "files": rows}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside one of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inside:
        yield (*path, key)
        yield from places(entry, (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return copy


ODD = [None, True, "", "x" * 400, "$\\frac$ | `<b>`\n", -1, 0, 10**30, 1e308, -1e308, 5e-324, [], {}, [[1]], {"a": 1}]


def test_every_key_may_be_missing_or_odd(pythia, made: Path, report: dict[str, Any], tmp_path: Path):
    """Each value of a report removed and replaced by others: the card is written, or one line says why not."""
    path, card = tmp_path / "report.json", (made / "README.md").read_text("utf-8")
    for place in places(report):
        mutants = [changed(report, place, lambda at, key: at.pop(key))]
        mutants += [changed(report, place, lambda at, key, odd=odd: at.__setitem__(key, odd)) for odd in ODD]
        for mutant in mutants:
            path.write_text(json.dumps(mutant), "utf-8")
            code, _, err = pythia("card", made, "--report", path)
            assert code in (0, 2, 65), err
            assert (err.count("\n"), "Traceback" in err) == (int(code != 0), False), err
    (made / "README.md").write_text(card, "utf-8")


def test_a_report_with_odd_numbers_is_drawn_or_refused(report: dict[str, Any], tmp_path: Path):
    from matplotlib.figure import Figure

    path = tmp_path / "report.json"
    drawn = {"ppl", "ln_ratio_error", "kl_mean", "kl_error", "bits_per_weight", "quant", "gelu"}
    for place in (p for p in places(report) if p[-1] in drawn and p[:2] != ("files", 1)):
        for odd in (None, 0, 1e308, "$\\frac$\n"):
            mutant = changed(report, place, lambda at, key, odd=odd: at.__setitem__(key, odd))
            path.write_text(json.dumps(mutant), "utf-8")
            try:
                data = read_report(path)
            except ModelFileError:
                continue
            figure = Figure(figsize=(3, 2))
            _against_bits(figure.subplots(), {"r": data}, "kl_mean" if "kl" in place[-1] else "ppl")
            figure.draw_without_rendering()


def test_a_thousand_mutants_of_a_report_are_one_line_or_a_report(report: dict[str, Any], tmp_path: Path):
    mutate(tmp_path / "x.json", json.dumps(report), read_report)


@pytest.mark.parametrize("results", [HARNESS, PYTHIA])
def test_a_thousand_mutants_of_results_are_one_line_or_results(results: dict[str, Any], tmp_path: Path):
    def read(path: Path) -> None:
        read_results(path, ours=True)
        agreements(scores_of(read_results(path, ours=False)), "v1", "pythia-70m")

    mutate(tmp_path / "x.json", json.dumps(results), read)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except PythiaGGUFError as e:
        return str(e)
    return ""


def mutate(path: Path, text: str, read: Callable[[Path], object]) -> None:
    numbers, n_refused = random.Random(14), 0
    for _ in range(1000):
        data = bytearray(text.encode())
        for _ in range(numbers.randint(1, 3)):
            at = numbers.randrange(len(data))
            kind = numbers.randrange(4)
            if kind == 0:
                data[at] = numbers.randrange(256)
            elif kind == 1:
                del data[at : at + numbers.randint(1, 30)]
            elif kind == 2:
                data[at:at] = numbers.choice(
                    [b"NaN", b"-Infinity", b"null", b"[" * 70, b'"', b"1e999", b"\xff", b"9" * 50]
                )
            else:
                data[at:at] = data[at : at + numbers.randint(1, 60)]
        path.write_bytes(data)
        message = refusal(read, path)
        n_refused += message != ""
        assert "\n" not in message
    assert 300 < n_refused < 1000


def test_results_of_each_layout_with_odd_values(pythia, made: Path, report: dict[str, Any], tmp_path: Path):
    folder = tmp_path / "nano-GGUF"
    shutil.copytree(made, folder)
    (folder / "report.json").write_text(json.dumps(report), "utf-8")
    for results in (HARNESS, PYTHIA):
        facts = results["config"]["pythia_gguf"] | {
            "file": "nano.Q4_0.gguf",
            "sha256": sha256_of(folder / "nano.Q4_0.gguf"),
        }
        counts = {task: {"original": 1838, "effective": 20} for task in results["results"]}
        whole = results | {"config": results["config"] | {"pythia_gguf": facts | {"n-samples": counts}}}
        for place in places(whole):
            for odd in (None, True, "N/A", -1, 1e308, [], {"a": [1]}):
                mutant = changed(whole, place, lambda at, key, odd=odd: at.__setitem__(key, odd))
                (folder / "results.json").write_text(json.dumps(mutant), "utf-8")
                code, _, err = pythia("card", folder)
                assert code in (0, 2, 65), err
                # Of a file that is not there nothing is taken, and that is said.
                is_left_out = code == 0 and place[-1] == "file"
                assert (err.count("\n"), "Traceback" in err) == (int(code != 0 or is_left_out), False), err


def test_nan_in_results_of_lm_eval_is_no_value(tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text('{"results": {"piqa": {"acc,none": NaN, "acc_stderr,none": NaN}, "sciq": {"acc": 0.5}}}', "utf-8")
    found = scores_of(read_results(path, ours=False))
    assert [a.score.value for a in agreements(found, "v1", "pythia-70m")] == [0.5]
