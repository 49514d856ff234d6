"""One answer to every GGUF: what quantize takes, the engine runs and export writes, and what one refuses all refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from press.toy_gguf import model_metadata, write_gguf
from pythia_gguf import load, quantize
from pythia_gguf.errors import ModelFileError
from pythia_gguf.export.folder import export
from pythia_gguf.gguf.container import Metadata
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.tokenizer import tokenizer_from_metadata

KEYS = model_metadata(hidden=32, n_layers=1, n_heads=2, n_ffn=32) | {"gptneox.rope.dimension_count": np.uint32(4)}
N_TOKENS = len(KEYS["tokenizer.ggml.tokens"])  # type: ignore[arg-type]
TEXT = "a b, atb 12345 <|x|>"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("toy") / "toy.F16.gguf", KEYS, hard=False)


def with_keys(source: Path, path: Path, keys: Metadata) -> Path:
    """The same tensors under other keys; the number of rows stays."""
    from pythia_gguf.gguf.container import padded
    from pythia_gguf.gguf.writer import header_bytes, layout

    gguf, data = open_gguf(source), source.read_bytes()
    infos = layout((t.name, t.format, t.shape) for t in gguf.tensors.values())
    body = b"".join(
        data[gguf.data_offset + t.offset :][: t.n_bytes].ljust(padded(t.n_bytes, 32), b"\0")
        for t in gguf.tensors.values()
    )
    path.write_bytes(header_bytes(keys, infos) + body)
    return path


def answers(path: Path, out: Path) -> dict[str, str]:
    """What each of them says to a file: the line that it refuses with, or "" and what it says of the text."""
    said: dict[str, str] = {}
    pressed = exported = model = None
    try:
        pressed = quantize(path, out / "pressed", quants="Q8_0", threads=1)
        said["quantize"] = ""
    except ModelFileError as e:
        said["quantize"] = str(e)
    try:
        exported = export(path, out / "exported")
        said["export"] = ""
    except ModelFileError as e:
        said["export"] = str(e)
    for name, file in (("load", path), ("load what was pressed", pressed.files[0].path if pressed else path)):
        try:
            model = load(file, threads=1)
            assert model.logits([1, 2, 3]).shape == (3, N_TOKENS)
            said[name] = ""
        except ModelFileError as e:
            said[name] = str(e)
    if not any(said.values()):
        assert pressed and exported and model
        check_text(pressed.notes, exported, model)
    return {name: line.replace(str(path), "FILE") for name, line in said.items()}


def check_text(notes: tuple[str, ...], exported: Any, model: Any) -> None:
    """Either all know the tokenizer and give the same ids, or it is said at once that there is none to be used."""
    assert exported.notes == notes
    tokenizer_json = exported.folder / "tokenizer.json"
    if any("on token ids, not on text" in note for note in notes):
        assert not tokenizer_json.exists()
        with pytest.raises(ModelFileError):
            model.tokenizer.encode(TEXT)
        return
    ids = model.tokenizer.encode(TEXT)
    assert Tokenizer.from_file(str(tokenizer_json)).encode(TEXT).ids == ids
    assert model.notes == notes
    assert model.generate("a b", max_tokens=2).text is not None


def check(path: Path, out: Path) -> str:
    said = answers(path, out)
    assert len(set(said.values())) == 1, said
    line = said["quantize"]
    assert "\n" not in line
    return line


REFUSED = {key for key in KEYS if key.startswith("gptneox.")} - {"gptneox.rope.dimension_count"} | {
    "general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges",
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_has_one_answer(key: str, source: Path, tmp_path: Path):
    path = with_keys(source, tmp_path / "toy.F16.gguf", {k: v for k, v in KEYS.items() if k != key})
    line = check(path, tmp_path)
    assert bool(line) == (key in REFUSED), line


# One of each type that a key may have, and the edges of the numbers.
ODD: tuple[Any, ...] = (
    np.uint32(0), np.uint32(2**32 - 1), np.int32(-1), np.uint64(3), np.float32("nan"), np.float32(0.5), True, "", "x",
    [], ["a"], np.zeros(0, np.int32), np.ones(N_TOKENS - 1, np.int32), np.full(N_TOKENS, 2, np.int32),
    np.ones(N_TOKENS, np.float32),
)  # fmt: skip


def test_odd_values_have_one_answer(source: Path, tmp_path: Path):
    """Every key with every oddity; those of the tokenizer, of which some are accepted, to the last byte of a text."""
    n_accepted = 0
    for i, key in enumerate(KEYS):
        for j, value in enumerate(ODD):
            out = tmp_path / f"{i}-{j}"
            out.mkdir()
            path = with_keys(source, out / "toy.F16.gguf", KEYS | {key: value})
            n_accepted += not check(path, out)
    assert n_accepted > 20


NAMES = ("mpt", "gpt-2", "default", "llama-bpe", "not-yet-invented")


@pytest.mark.parametrize("pre", NAMES)
def test_pre_tokenizers_have_one_answer(pre: str, source: Path, tmp_path: Path):
    path = with_keys(source, tmp_path / "toy.F16.gguf", KEYS | {"tokenizer.ggml.pre": pre})
    assert check(path, tmp_path) == ""


@pytest.mark.parametrize(
    "keys",
    [
        {"tokenizer.ggml.model": "none", "tokenizer.ggml.tokens": ..., "gptneox.vocab_size": np.uint32(N_TOKENS)},
        {"tokenizer.ggml.model": ..., "tokenizer.ggml.tokens": ..., "gptneox.vocab_size": np.uint32(N_TOKENS)},
        {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": np.zeros(N_TOKENS, np.float32)},
        {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": ...},
        {"tokenizer.ggml.add_bos_token": True},
        {"tokenizer.ggml.add_eos_token": True},
        {"tokenizer.ggml.add_space_prefix": True},
        {"tokenizer.ggml.eos_token_id": np.uint32(2**32 - 1)},
    ],
)
def test_tokenizers_have_one_answer(keys: dict[str, Any], source: Path, tmp_path: Path):
    changed = {k: v for k, v in (KEYS | keys).items() if v is not ...}
    assert check(with_keys(source, tmp_path / "toy.F16.gguf", changed), tmp_path) == ""


def test_a_file_of_2023_is_split_as_gpt_neox_does(source: Path, tmp_path: Path):
    """Its ids are those of the same file with the name that the converter writes today, and it is said."""
    old = {k: v for k, v in KEYS.items() if k != "tokenizer.ggml.pre"}
    path = with_keys(source, tmp_path / "toy.F16.gguf", old)
    text = TEXT + " e\u0301 1234567 don't \u4e16"
    expected = tokenizer_from_metadata(KEYS, "today").encode(text).ids
    model = load(path)
    assert model.tokenizer.encode(text) == expected
    (note,) = model.notes
    assert "tokenizer.ggml.pre is missing" in note and "'olmo'" in note
    assert quantize(path, dry_run=True, quants="Q8_0").notes == (note,)


# Of each command that reads or writes text with a model; those that have none of it say what `quantize` says.
SAYS = {
    "quants": ["quants", "FILE", "--quants", "Q8_0"],
    "generate": ["generate", "FILE", "a b", "--max-tokens", "1"],
    "score": ["score", "FILE", "--prompt", "a", "--continuation", "b"],
    "export": ["export", "FILE", "--to", "OUT"],
    "measure": [
        "measure",
        "FILE",
        "--reference",
        "FILE",
        "--text",
        str(Path(__file__)),
        "--context",
        "8",
        "--chunks",
        "1",
    ],
}


def test_every_command_says_how_a_file_of_2023_is_read(pythia, source: Path, tmp_path: Path):
    old = {k: v for k, v in KEYS.items() if k != "tokenizer.ggml.pre"}
    path = with_keys(source, tmp_path / "toy.F16.gguf", old)
    for command, args in SAYS.items():
        code, out, err = pythia(*({"FILE": path, "OUT": tmp_path / "hf"}.get(a, a) for a in args))
        assert code == 0, (command, err)
        assert (out + err).count("tokenizer.ggml.pre is missing") == 1, command
