"""What a run publishes of itself: nothing of the maker's disk, and a command that a reader can run."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hub.card_refusals import refusals
from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf import quantize
from pythia_gguf.cli.quantize import command
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import pull
from pythia_gguf.press.file_names import check_name, legal_name
from pythia_gguf.press.manifest import CARD

SECRET = "secret-project"
TEXTS = (CARD, "manifest.json", "SHA256SUMS")
# Every option of quantize, as it is given so that something private is in it wherever something private can be.
GIVEN = {
    "source": (),  # in front
    "out": ("--out", "{private}/out"),
    "quants": ("--quants", "Q8_0,Q4_0"),
    "mix": ("--mix", "2026"),
    "threads": ("--threads", "1"),
    "name": ("--name", "tiny"),  # no path: those are refused
    "quantized_by": ("--quantized-by", "me"),  # is there to be published
    "dry_run": (),  # publishes nothing
    "force": ("--force",),
    "imatrix": ("--imatrix", "{private}/imatrix.gguf"),
    "keep_f16": ("--keep-f16",),
    "keep_source": (),  # of models of the Hub, which have no path
    "output_format": ("--output-format", "text"),
    "quiet": ("--quiet",),
}


def private_folder(tmp_path: Path) -> Path:
    """A folder of somebody, with the model in several forms and an importance matrix of texts on two systems."""
    private = tmp_path / SECRET
    private.mkdir()
    files = tiny.folder_files(width=32)
    tiny.write(private / "folder", files)
    (private / "m.F16.gguf").write_bytes(tiny.gguf_bytes(width=32))
    entry = Importance(sums=np.ones(32, np.float32), count=16)
    texts = (f"/home/{SECRET}/calibration.txt", f"C:\\Users\\{SECRET}\\more.txt")
    matrix = ImportanceMatrix(entries={"blk.0.attn_qkv.weight": entry}, datasets=texts, n_chunks=1, chunk_tokens=16)
    (private / "imatrix.gguf").write_bytes(imatrix_bytes(matrix))
    return private


def command_of(card: Path) -> list[str]:
    """The words of the command in a card."""
    return shlex.split(card.read_text("utf-8").split("The command:")[1].split("```")[1].removeprefix("sh\n"))


def test_every_option_is_looked_at():
    assert {p.name for p in command.params} == set(GIVEN)


@pytest.mark.parametrize("source", ["folder", "m.F16.gguf", "snapshot"])
def test_no_path_is_published(source: str, tmp_path: Path, pythia, hub: LoopbackHub):
    private = private_folder(tmp_path)
    if source == "snapshot":
        hub.add("me/tiny", private / "folder")
        (private / "snapshot").symlink_to(pull(parse_model_name("me/tiny")))
    options = [word.format(private=private) for words in GIVEN.values() for word in words]
    code, _, err = pythia("quantize", private / source, *options)
    assert (code, err) == (0, "")
    for name in TEXTS:
        assert SECRET not in (private / "out" / name).read_text("utf-8"), name
    model = {"folder": ["tiny"], "m.F16.gguf": ["m.F16.gguf", "--name", "tiny"]}.get(source)
    commit = hub.commit("me/tiny", "main") if model is None else ""
    assert command_of(private / "out" / CARD) == [
        *("pythia", "quantize", *(model or [f"me/tiny@{commit}", "--name", "tiny"])),
        *("--quants", "Q4_0,Q8_0", "--mix", "2026", "--imatrix", "imatrix.gguf", "--keep-f16"),
    ]
    code, _, err = pythia("quantize", private / source, "--name", str(private))
    assert (code, "cannot name files" in err) == (2, True)


HOME = f"/home/{SECRET}"
WINDOWS = f"C:\\Users\\{SECRET}\\out"
# Front matters as trainers write them, on models and data of a disk.
CARDS = {
    "a path": f"base_model: {HOME}/out\ndatasets:\n- {HOME}/train.jsonl\n- me/letters",
    "in quotes": f"base_model: \"{WINDOWS.replace(chr(92), chr(92) * 2)}\"\ndataset: '{WINDOWS}'",
    "relative": f"base_model: ../{SECRET}/out\ndatasets: runs/{SECRET}/data/train.jsonl",
    "home": f"base_model: ~/{SECRET}/out\ndatasets: file:///data/{SECRET}",
    "mappings": f"base_model:\n- name: Base\n  repo_url: {HOME}/out\n- me/base\ndatasets:\n- name: {HOME}/data",
    "tags": f"base_model: {HOME}/out\ntags:\n- base_model:adapter:{HOME}/out\n- dataset:{HOME}/train.jsonl\n- causal",
    "names": f"model_name: {HOME}/out\nname: {HOME}/out\nlicense_link: {HOME}/LICENSE\nurl: {HOME}\nmetrics: [{HOME}]",
    "results": f"model-index:\n- name: {HOME}/out\n  results:\n  - dataset: {{name: {HOME}/train.jsonl, type: json}}",
}


@pytest.mark.parametrize("case", CARDS)
def test_no_path_of_the_original_card_is_published(case: str, tmp_path: Path):
    """Neither in the card nor in the keys of files; what is left is a card that the Hub takes."""
    base = yaml.safe_load(CARDS[case]).get("base_model")
    told = f"A fine-tuned version of [{base}](https://huggingface.co/{base}) on letters.\n\n## Uses\n\n{base}\n"
    readme = f"---\nlicense: mit\n{CARDS[case]}\n---\n# Mine\n\n{told if isinstance(base, str) else ''}"
    tiny.write(tmp_path / "tiny", tiny.folder_files(width=32) | {"README.md": readme.encode()})
    result = quantize(tmp_path / "tiny", tmp_path / "out", quants="Q8_0", quantized_by="me")
    for path in (tmp_path / "out").iterdir():
        assert SECRET.encode() not in path.read_bytes(), path.name
    text = (tmp_path / "out" / CARD).read_text("utf-8")
    assert refusals(text) == []
    assert "license: mit\n" in text and ("me/letters" in text) == ("me/letters" in readme)
    metadata = open_gguf(result.files[0].path).metadata
    assert metadata["general.license"] == "mit"
    assert metadata.get("general.dataset.0.name") == ("Letters" if case == "a path" else None)
    assert case in ("mappings", "results") or any("as the Hub would refuse it" in note for note in result.notes)


def test_the_path_of_an_importance_matrix_is_said_to_be_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """llama.cpp's bytes require it."""
    private = private_folder(tmp_path)
    monkeypatch.chdir(private)
    for path, is_said in ((private / "imatrix.gguf", True), (Path("..") / SECRET / "imatrix.gguf", True)):
        result = quantize("folder", quants="Q8_0", imatrix=path, dry_run=True)
        assert any(f"the files hold the path {path}" in note for note in result.notes) == is_said
    assert quantize("folder", quants="Q8_0", imatrix="imatrix.gguf", dry_run=True).notes == ()


@pytest.mark.parametrize("source", ["folder", "m.F16.gguf", "me/tiny", "me/tiny@step1", "snapshot"])
def test_a_reader_can_run_the_command(
    source: str, tmp_path: Path, hub: LoopbackHub, pythia, monkeypatch: pytest.MonkeyPatch
):
    """Whoever has the model, under its name, gets the same files from it, in a later run for some of them too."""
    private = private_folder(tmp_path)
    for branch in ("main", "step1"):
        hub.add("me/tiny", private / "folder", branch=branch)
    given = private / source if (private / source).exists() else source
    if source == "snapshot":
        given = pull(parse_model_name("me/tiny@step1"))
    quantize(given, private / "out", quants="Q8_0")
    quantize(given, private / "out", quants="Q4_0", keep_f16=True)
    reader = tmp_path / "reader"
    shutil.copytree(private / "folder", reader / "folder")
    shutil.copy(private / "m.F16.gguf", reader)
    monkeypatch.chdir(reader)
    code, _, err = pythia(*command_of(private / "out" / CARD)[1:], "--out", "again", "--quiet")
    assert (code, err) == (0, "")
    assert (reader / "again" / "SHA256SUMS").read_bytes() == (private / "out" / "SHA256SUMS").read_bytes()


ODD = [
    "lr=1e-5,bs=32",
    "Модель (1)",
    "✨",
    "мир",
    "a" * 240,
    "model.",
    "..x..",
    "-rf",
    "a\nb",
    "tab\t",
    "CON|?*",
    "é" * 120,
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_ours_to_choose_is_legal(name: str):
    chosen = legal_name(name)
    assert check_name(chosen) == chosen
    assert len({legal_name(n) for n in ODD}) == len(ODD)


def test_names_that_are_legal_stay():
    for name in ("pythia-70m", "a name 1.5", "x_y+z"):
        assert legal_name(name) == name


def test_a_folder_of_any_name_is_quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Модель (1)", "lr=1e-5,bs=32"):
        tiny.write(tmp_path / name, tiny.folder_files(width=32))
        result = quantize(name, quants="Q8_0")
        assert result.folder == Path(f"{legal_name(name)}-GGUF")
        assert [f.path.name for f in result.files] == [f"{legal_name(name)}.Q8_0.gguf"]
        assert result.notes[0] == f"no file can be called {name!r} everywhere: {legal_name(name)} can"
