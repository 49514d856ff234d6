"""The commands that speak to the Hub, through the entry point: output, exit codes, and no token in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import TOKEN
from hub.loopback import LoopbackHub
from press.tiny import folder_files

NANO = Path(__file__).parents[2] / "examples" / "nano"


def test_models_as_table_and_json(pythia):
    code, out, _ = pythia("models")
    assert code == 0
    assert "pythia-12b-deduped-v0" in out
    code, out, _ = pythia("models", "pythia-410m@step100000", "--output-format", "json")
    (model,) = json.loads(out)
    assert code == 0
    assert (model["name"], model["parameters"], model["non_embedding_parameters"]) == (
        "pythia-410m",
        405_334_016,
        302_311_424,
    )
    assert model["tokens_seen"] == 100_000 * 2_097_152
    assert model["learning_rate"] == pytest.approx(6.596025e-5, rel=1e-6)
    code, out, err = pythia("models", "pythia-350m")
    assert code == 0
    assert "pythia-410m" in err
    assert "154: step0" in out


def test_pull_says_where_it_lies(pythia, hub: LoopbackHub):
    commit = hub.add("EleutherAI/pythia-70m", folder_files(), branch="step3000")
    code, out, err = pythia("pull", "pythia-70m@step3000", "--endpoint", hub.url)
    assert code == 0
    assert out.strip().endswith(commit)
    code, out, _ = pythia("pull", "pythia-70m@step3000", "--output-format", "json")
    assert json.loads(out)["commit"] == commit
    assert TOKEN not in out + err


def test_check_revisions_ends_with_one_for_findings(pythia, hub: LoopbackHub):
    for n in (1, 2):
        hub.add("me/run", folder_files(), f"step{n}")
    hub.add("me/run", folder_files())
    code, out, _ = pythia("check-revisions", "me/run")
    assert code == 1
    assert "same sha256" in out
    assert "corrupt" not in out
    hub.add("me/run", folder_files(width=32), "step1")
    code, out, _ = pythia("check-revisions", "me/run", "--output-format", "json")
    assert (code, json.loads(out)["findings"]) == (0, [])


def test_quantize_publish_and_export_by_name(pythia, hub: LoopbackHub, tmp_path: Path):
    hub.add("EleutherAI/pythia-14m", NANO)
    out_dir = tmp_path / "out"
    code, out, err = pythia("quantize", "pythia-14m", "--quants", "Q8_0", "--out", out_dir, "--quantized-by", "me")
    assert code == 0, err
    assert "pythia-14m.Q8_0.gguf" in out
    code, out, err = pythia("publish", out_dir, "--repo", "me/x", "--dry-run")
    assert code in (0, 65)
    manifest = (out_dir / "manifest.json").read_text("utf-8")
    assert TOKEN not in out + err + manifest
    code, out, err = pythia("export", out_dir, "--to", tmp_path / "hf")
    assert code == 0, err
    assert (tmp_path / "hf" / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("models", "pythia-71m"), 2, "Did you mean pythia-70m"),
        (("models", "pythia-70m@step3001"), 2, "step3000 and step4000"),
        (("models", "pythia-70m@main2"), 2, "no step"),
        (("models", "me/x"), 2, "not in the Pythia suite"),
        (("pull", "me/none"), 69, "no such repository"),
        (("pull", "pythia-70m:Q8_0"), 2, "has no quant"),
        (("pull", "a/b/c"), 2, "is no file"),
        (("check-revisions", "me/none"), 69, "no such repository"),
        (("quantize", "pythia-71m"), 74, "no such file or folder, and as a name"),
        (("quantize", "pythia-70m:Q8_0"), 2, "Say --quants Q8_0"),
        (("generate", "me/none:Q8_0", "x"), 69, "no such repository"),
        (("generate", "nothing.gguf", "x"), 74, "cannot open"),
        (("publish", "nowhere", "--repo", "me/x"), 74, "no such folder"),
        (("publish", str(NANO), "--repo", "x"), 2, "USER/NAME"),
        (("publish", str(NANO), "--repo", "me/x", "--branches"), 2, "no folder stepN"),
        (("export", "nothing.gguf", "--to", "x"), 74, "cannot open"),
    ],
)
def test_wrong_inputs_are_one_line(arguments: tuple[str, ...], code: int, said: str, pythia, hub: LoopbackHub):
    got, _, err = pythia(*arguments)
    assert got == code, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert said in last
    assert TOKEN not in err
