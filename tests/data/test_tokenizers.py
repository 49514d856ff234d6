"""Whatever names a tokenizer, the ids are those of its tokenizer.json, and PREFIX.tokenizer.json makes text of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engine.nano import NANO, nano_files
from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf.cli.main import COMMANDS, find_command
from pythia_gguf.data.text import open_tokenizer
from pythia_gguf.data.token_file import TokenFile
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError

LIBRARY = Tokenizer.from_file(str(NANO / "tokenizer.json"))
TEXT = "def main(x):\n    return \N{SNOWMAN}  <|endoftext|>  e\N{COMBINING ACUTE ACCENT}\n"
PLACES = ["file", "folder", "step of a run", "GGUF", "folder of a GGUF", "name of the Hub"]


@pytest.fixture
def places(tmp_path: Path, hub: LoopbackHub) -> dict[str, str]:
    """One tokenizer in every form that a user may have it in."""
    hub.add("EleutherAI/pythia-14m", NANO)
    for name in ("gguf", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "gguf" / "nano.Q4_0.gguf").write_bytes(nano_files()["Q4_0"].read_bytes())
    (tmp_path / "run" / "step3").symlink_to(NANO)
    texts = [NANO / "tokenizer.json", NANO, tmp_path / "run@step3", nano_files()["Q8_0"], tmp_path / "gguf"]
    return dict(zip(PLACES, [*map(str, texts), "pythia-14m"], strict=True))


@pytest.mark.parametrize("kind", PLACES)
def test_a_tokenizer_may_be_named_as_any_model(pythia, places: dict[str, str], kind: str, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    line = ["data", "tokenize", tmp_path / "a.txt", "--tokenizer", places[kind], "-o", tmp_path / "x"]
    code, _, err = pythia(*line, "--processes", "1")
    assert code == 0, err
    with TokenFile(tmp_path / "x") as tokens:
        ids = tokens.read(0).tolist()
    assert ids == [*LIBRARY.encode(TEXT, add_special_tokens=False).ids, LIBRARY.token_to_id("<|endoftext|>")]
    code, _, err = pythia("data", "order", tmp_path / "x", "--steps", "1", "--batch", "1", "--context", len(ids) - 1)
    shown = LIBRARY.decode(ids, skip_special_tokens=False)
    for more in ([], ["--tokenizer", places[kind]]):
        code, out, err = pythia("data", "view", tmp_path / "x", "--step", "1", "--batch", "1", *more)
        part = f"--- {len(ids)} tokens from token 0 of document 0: source not said"
        assert (code, out) == (0, f"--- step 1, row 0\n{part}\n{shown}\n"), err
    if kind in ("file", "folder", "step of a run", "name of the Hub"):
        assert (tmp_path / "x.tokenizer.json").read_bytes() == (NANO / "tokenizer.json").read_bytes()


# Every command that makes text or ids by a tokenizer, after PREFIX; {model} is a run of it, {out} a place for results.
TAKES = {
    "data view": ["--step", "1", "--batch", "1"],
    "data find": [" x", "--batch", "1"],
    "data trace": [TEXT, "--batch", "1"],
    "data effect": [" x", "--batch", "1", "--model", "{model}"],
}


def test_every_command_with_a_tokenizer_is_tried():
    having = {n for n in COMMANDS for p in find_command(n).params if p.name == "tokenizer"}
    assert having == {"data tokenize", *TAKES}


def test_every_command_takes_it_as_any_model(pythia, places: dict[str, str], tmp_path: Path):
    """Without the one beside PREFIX, each place gives what that one gave."""
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    prefix = tmp_path / "x"
    for line in (
        ["tokenize", tmp_path / "a.txt", "--tokenizer", NANO, "-o", prefix, "--processes", "1"],
        ["order", prefix, "--steps", "1", "--batch", "1", "--context", "8"],
        ["index", prefix],
    ):
        assert pythia("data", *line)[0] == 0
    run = tmp_path / "own-run"
    (run / "step0").mkdir(parents=True)
    (run / "step0" / "nano.Q4_0.gguf").symlink_to(nano_files()["Q4_0"])
    lines = {n: [*n.split(), prefix, *(w.format(model=f"{run}:Q4_0") for w in words)] for n, words in TAKES.items()}
    expected = {name: pythia(*line) for name, line in lines.items()}
    assert {code for code, _, _ in expected.values()} == {0}, expected
    (tmp_path / "x.tokenizer.json").unlink()
    for name, line in lines.items():
        assert pythia(*line)[0] == 2
        for kind in PLACES:
            assert pythia(*line, "--tokenizer", places[kind])[:2] == expected[name][:2], (name, kind)


def test_what_names_no_tokenizer(tmp_path: Path, hub: LoopbackHub):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.gguf").write_bytes(nano_files()["Q4_0"].read_bytes()[:1000])
    (tmp_path / "bare.gguf").write_bytes(tiny.gguf_bytes())
    (tmp_path / "list.json").write_text("[]")
    cases: list[tuple[object, type[PythiaGGUFError], str]] = [
        (tmp_path / "empty", UsageError, "holds neither tokenizer.json nor one GGUF"),
        (tmp_path / "none", StorageError, "none: cannot open"),
        (str(tmp_path / "none"), StorageError, "no such file or folder"),
        (tmp_path / "cut.gguf", ModelFileError, "cut.gguf: "),
        (tmp_path / "bare.gguf", ModelFileError, "bare.gguf: "),
        (tmp_path / "list.json", ModelFileError, "expected a JSON object"),
        ("pythia-14m:Q4_0", UsageError, "a checkpoint has no quant"),
    ]
    for place, kind, says in cases:
        with pytest.raises(kind, match=says) as caught:
            open_tokenizer(place)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
