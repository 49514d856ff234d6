"""No JSON of ours holds NaN or Infinity: every command that prints or writes JSON, on models that have no such figures.

Three models: a weight is NaN; weights are finite and logits overflow; logits are finite and exp of the loss overflows.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from cli.command_lines import Material, make_material
from cli.test_options import options_of
from engine.nano import HELDOUT, nano_files
from engine.test_not_finite import damaged, exploding
from hub.loopback import loopback_hub
from pythia_gguf.cli.main import COMMANDS
from pythia_gguf.files import sha256_of
from pythia_gguf.gguf.reader import decode_tensor, open_gguf

WITH_JSON = [name for name in COMMANDS if any("--output-format" in o.opts for o in options_of(name))]
# They ask the Hub, and no model.
OF_THE_HUB = {"pull", "check-revisions", "data view", "data pull"}
KINDS = ("weight", "logits", "loss")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with loopback_hub() as hub:
        yield make_material(tmp_path_factory.mktemp("numbers"), hub)


@pytest.fixture(scope="module")
def broken(material: Material, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Material]:
    """The material once for each kind, its Q4_0 file one that has no figures."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind) / "made"
        shutil.copytree(material.folder, folder)
        path = folder / "nano.Q4_0.gguf"
        if kind == "weight":
            damaged(path, nano_files()["Q4_0"], "output_norm.weight", {4: struct.pack("<f", float("nan"))})
        elif kind == "logits":
            exploding(path)
        else:
            far(path)
            # A file of its own, not a damaged one: `card` takes what the manifest says of it.
            manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
            for entry in manifest["files"]:
                entry["sha256"] = sha256_of(folder / entry["file"])
            (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        made[kind] = replace(material, folder=folder)
    return made


def far(path: Path) -> None:
    """A model whose losses are thousands of nats: its last norm is 2,000 times as large."""
    source = nano_files()["Q4_0"]
    norm = decode_tensor(open_gguf(source), "output_norm.weight")
    damaged(path, source, "output_norm.weight", {0: (norm * np.float32(2000)).tobytes()})


def strict(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def as_json(pythia: Any, material: Material, name: str, arguments: list[str | Path]) -> tuple[int, str, str]:
    """Runs a command with JSON for its output; checks it and all JSON that it writes."""
    if name in OF_THE_HUB:
        done = material.run(name, [*arguments, "--output-format", "json"], capture_output=True)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        code, out, err = pythia(*name.split(), *arguments, *(("--output-format", "json") if name in WITH_JSON else ()))
    assert "Traceback" not in err
    if out and name in WITH_JSON:
        strict(out)
    return code, out, err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_gives_numbers_null_or_one_line(
    pythia, broken: dict[str, Material], tmp_path: Path, name: str, kind: str
):
    material = broken[kind]
    if name in (*OF_THE_HUB, "models", "warmup", "publish") and kind != KINDS[0]:
        return  # they are the same for every model
    code, out, err = as_json(pythia, material, name, material.lines(tmp_path)[name])
    # The report in the folder is of the file that was there before.
    assert code in ((0, 2, 65) if name in ("publish", "card") else (0, 65)), err
    if code:
        errors = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
    for path in (*tmp_path.glob("*.json"), *material.folder.glob("*.json")):
        strict(path.read_text("utf-8"))


def test_a_perplexity_that_overflows_is_null_and_said(pythia, broken: dict[str, Material], tmp_path: Path):
    """In report and table, then in card and picture."""
    folder = broken["loss"].folder
    report = folder / "report.json"
    options = ("--text", HELDOUT, "--context", "128", "--chunks", "2", "-o", report, "--force")
    code, out, err = pythia("measure", folder, *options)
    assert code == 0, err
    rows = {row["quant"]: row for row in strict(report.read_text("utf-8"))["files"]}
    assert rows["Q4_0"]["ppl"] is None and rows["Q4_0"]["ppl_error"] is None
    assert rows["Q4_0"]["kl_mean"] > 100
    assert rows["Q8_0"]["ppl"] > 1 and "missing" not in rows["Q8_0"]
    (row,) = [line.split() for line in out.splitlines() if line.startswith("Q4_0 ")]
    assert row[4:6] == ["-", "-"]
    assert "- Q4_0: no perplexity: exp of the mean loss, " in out
    code, _, err = pythia("plot", report, "-o", tmp_path)
    assert code == 0, err
    code, _, err = pythia("card", folder)
    assert code == 0, err
    card = (folder / "README.md").read_text("utf-8")
    assert "No figure: Q4_0, int8: no perplexity: exp of the mean loss" in card
    assert not re.search(r"\b(nan|inf)\b", card.partition("## What each file costs")[2], re.IGNORECASE)


def test_a_file_whose_logits_overflow_spoils_no_other_and_tells_no_path(pythia, broken: dict[str, Material]):
    folder = broken["logits"].folder
    options = ("--text", HELDOUT, "--context", "128", "--chunks", "2")
    code, out, err = pythia("measure", folder, *options)
    assert code == 0, err
    assert "- Q4_0: window 1: infinity or NaN at position " in out
    assert str(folder) not in out
    code, out, err = pythia("measure", folder, "--reference", folder / "nano.Q4_0.gguf", *options)
    assert (code, out) == (65, ""), err


def test_one_item_has_no_error(pythia, material: Material, tmp_path: Path):
    """lm_eval gives NaN for the error of a single item."""
    out = tmp_path / "results.json"
    for layout in ("harness", "pythia"):
        task = ("--tasks", "two_words", "--include-path", material.tasks, "--limit", "1", "--layout", layout)
        code, table, err = pythia("eval", nano_files()["Q8_0"], *task, "-o", out, "--force")
        assert code == 0, err
        strict(out.read_text("utf-8"))
        assert not re.search(r"\b(nan|inf)\b", table, re.IGNORECASE)
