"""No number of other files: every command that takes a report or results, after the model in the folder was trained
further, and each file, hash and picture that may be another."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.command_lines import write_task
from engine.nano import HELDOUT, NANO
from evals.trained import trained_further
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError
from pythia_gguf.evals.at_hand import files_at_hand
from pythia_gguf.files import sha256_of
from pythia_gguf.press import manifest as manifest_module
from pythia_gguf.press.manifest import MANIFEST

SHORT = ("--text", HELDOUT, "--context", "64", "--chunks", "2")


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_further(NANO, tmp_path_factory.mktemp("further") / "nano")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "tasks"
    write_task(folder)
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "nano-GGUF"
    quantize(NANO, folder, quants="Q4_0,Q8_0", keep_f16=True)
    return folder


@pytest.fixture
def made(pythia, first: Path, tmp_path: Path, tasks: Path) -> Path:
    """A folder with report, results and pictures that are of it."""
    folder = tmp_path / "nano-GGUF"
    if not (first / "report.json").exists():
        fill(pythia, first, tasks)
    shutil.copytree(first, folder)
    return folder


def fill(pythia: Any, folder: Path, tasks: Path) -> None:
    task = ("--tasks", "two_words", "--include-path", tasks)
    for arguments in (
        ("measure", folder, *SHORT, "-o", folder / "report.json"),
        ("eval", folder / "nano.Q8_0.gguf", *task, "-o", folder / "results-Q8_0.json"),
        ("plot", folder / "report.json", "-o", folder),
        ("card", folder),
    ):
        code, _, err = pythia(*arguments)
        assert code == 0, err


def refused(pythia: Any, *arguments: object) -> str:
    code, out, err = pythia(*arguments)
    assert (code, out) == (2, ""), err
    return err.splitlines()[-1]


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    return ((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))


def test_numbers_of_the_model_before_are_refused_by_name(pythia, made: Path, further: Path, tasks: Path):
    """T24: same names, same sizes. Each command says which files, and what to do; after that all is well again."""
    report, results = made / "report.json", made / "results-Q8_0.json"
    quantize(further, made, quants="Q4_0,Q8_0", keep_f16=True, force=True)
    before = list(written(made))
    said = f"Error: {report}: measured other files than lie there now: nano.F16.gguf, nano.Q4_0.gguf, nano.Q8_0.gguf. "
    again = f"Measure again: `pythia measure {made} --text FILE -o {report} --force`"
    assert refused(pythia, "card", made) == said + again
    assert refused(pythia, "plot", report, "-o", made).startswith(said + "Measure again")
    assert list(written(made)) == before
    code, _, err = pythia("measure", made, *SHORT, "-o", report)
    assert code == 0, err
    assert refused(pythia, "card", made) == (
        f"Error: {results}: measured other files than lie there now: nano.Q8_0.gguf."
        f" Run the tasks again: `pythia eval {made / 'nano.Q8_0.gguf'} -o {results} --force`"
    )
    task = ("--tasks", "two_words", "--include-path", tasks, "-o", results)
    code, _, err = pythia("eval", made / "nano.Q8_0.gguf", *task)
    assert code == 74 and f"{results} exists and is about another model" in err
    assert pythia("eval", made / "nano.Q8_0.gguf", *task, "--force")[0] == 0
    code, _, err = pythia("card", made)
    assert code == 0, err
    # The pictures are of the report before.
    assert [line.split(": ")[0] for line in err.splitlines() if "left out" in line] == [
        str(made / name) for name in ("divergence.png", "perplexity.png")
    ]
    card = (made / "README.md").read_text("utf-8")
    measured = {row["quant"]: row for row in json.loads(report.read_text("utf-8"))["files"]}
    assert "divergence.png" not in card
    (row,) = [line for line in card.splitlines() if line.startswith("| Q4_0 | int8 |")]
    assert f" | {measured['Q4_0']['ppl']:.3f} ±" in row
    assert pythia("plot", report, "-o", made)[0] == pythia("card", made)[0] == 0
    assert "](divergence.png)" in (made / "README.md").read_text("utf-8")


@pytest.mark.parametrize("file", ["nano.Q4_0.gguf", "nano.F16.gguf"])
def test_one_file_of_another_model_is_enough(pythia, made: Path, further: Path, tmp_path: Path, file: str):
    """Put there by hand, its time older than all else, then the manifest too: a measured file, and the reference."""
    other = tmp_path / "other"
    quantize(further, other, quants="Q4_0", keep_f16=True)
    os.utime(other / file, ns=(1, 1))
    os.replace(other / file, made / file)
    code, out, err = pythia("card", made)
    assert (code, out) == (65, "")
    assert err == f"Error: {made / file}: is not what {MANIFEST} says. Make it again\n"
    manifest = json.loads((made / MANIFEST).read_text("utf-8"))
    for entry in manifest["files"]:
        entry["sha256"] = sha256_of(made / entry["file"])
    (made / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    assert f"measured other files than lie there now: {file}. " in refused(pythia, "card", made)


def test_what_does_not_say_its_bytes_is_not_published(pythia, made: Path):
    """Reports and results of an older version."""
    report, results = made / "report.json", made / "results-Q8_0.json"
    data = json.loads(report.read_text("utf-8"))
    hashless = {**data, "files": [{k: v for k, v in row.items() if k != "sha256"} for row in data["files"]]}
    report.write_text(json.dumps(hashless), "utf-8")
    said = "does not say which bytes it is about (no sha256, from an older version): nano.F16.gguf, nano.Q4_0.gguf"
    assert f"{report}: {said}" in refused(pythia, "card", made)
    report.write_text(json.dumps(data), "utf-8")
    found = json.loads(results.read_text("utf-8"))
    del found["config"]["pythia_gguf"]["sha256"]
    results.write_text(json.dumps(found), "utf-8")
    assert f"{results}: does not say which bytes" in refused(pythia, "card", made)


def test_a_report_on_two_folders_is_of_each(pythia, made: Path, further: Path, tmp_path: Path):
    """Files of the same names: each card has the numbers of its own."""
    other, report = tmp_path / "other", tmp_path / "both.json"
    quantize(further, other, quants="Q4_0,Q8_0", keep_f16=True)
    code, _, err = pythia("measure", made, other, *SHORT, "-o", report)
    assert code == 0, err
    rows = json.loads(report.read_text("utf-8"))["files"]
    for folder in (made, other):
        code, _, err = pythia("card", folder, "--report", report)
        assert code == 0, err
        (ppl,) = [r["ppl"] for r in rows if r["quant"] == "Q4_0" and sha256_of(folder / r["file"]) == r["sha256"]]
        (line,) = [x for x in (folder / "README.md").read_text("utf-8").splitlines() if x.startswith("| Q4_0 | int8 |")]
        assert f" | {ppl:.3f} \u00b1" in line
    # A picture of both goes anywhere, one of the other model not here.
    assert pythia("plot", report, made / "report.json", "-o", made)[0] == 0
    assert pythia("measure", other, *SHORT, "-o", other / "report.json")[0] == 0
    assert "measured other files than lie there now" in refused(pythia, "plot", other / "report.json", "-o", made)


def test_rows_of_deleted_files_are_left_out(pythia, made: Path, first: Path):
    (made / "nano.Q4_0.gguf").unlink()
    (made / "nano.Q8_0.gguf").unlink()
    code, _, err = pythia("card", made)
    assert code == 0, err
    assert f"{made / 'results-Q8_0.json'}: of nano.Q8_0.gguf, which is not in this folder, so left out" in err
    assert "### Tasks" not in (made / "README.md").read_text("utf-8")
    shutil.rmtree(made)
    shutil.copytree(first, made)
    (made / "nano.Q4_0.gguf").unlink()
    code, _, err = pythia("card", made)
    assert code == 0, err
    section = (made / "README.md").read_text("utf-8").partition("## What each file costs")[2]
    assert "| Q4_0 | int8 |" not in section and "| Q8_0 | int8 |" in section and "### Tasks" in section
    assert "No file is recommended: there is nothing to compare Q8_0 with" in section
    # The rest made, no card has what was measured of the one that is gone; the command puts in the others.
    (made / "nano.Q8_0.gguf").unlink()
    quantize(NANO, made, quants="Q5_0")
    card = (made / "README.md").read_text("utf-8")
    assert "nano.Q5_0.gguf" in card and "What each file costs" not in card
    for path in made.glob("*.gguf"):
        path.unlink()
    code, _, err = pythia("card", made)
    assert (code, err) == (74, f"Error: {made}: no file that {MANIFEST} lists is here\n")


def test_hashes_are_of_the_files_as_they_are_and_cost_no_reading_when_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, hashed = tmp_path / "made", list[str]()

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    quantize(NANO, folder, quants="Q4_0,Q8_0", keep_f16=True)
    monkeypatch.setattr(manifest_module, "sha256_of", counted)
    expected = {path.name: sha256_of(path) for path in folder.glob("*.gguf")}
    assert files_at_hand(folder) == expected
    assert hashed == []
    # A copy has other times: every byte is read, and is what it was.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy / "nano.Q4_0.gguf")
    assert files_at_hand(copy) == expected
    assert "nano.Q4_0.gguf" in hashed
    data = bytearray((copy / "nano.Q8_0.gguf").read_bytes())
    data[-1] ^= 1
    (copy / "nano.Q8_0.gguf").write_bytes(data)
    with pytest.raises(ModelFileError, match=r"manifest\.json: says other hashes than .*: nano\.Q8_0\.gguf"):
        files_at_hand(copy)
    assert files_at_hand(NANO) is None
