"""`pythia inspect` says what a file is, completely in JSON, and prints nothing that could do harm."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gguf import toy
from gguf.craft import BOOL, STRING, Key, draft, keys, string, tensors, valid
from pythia_gguf.cli.inspect import command
from pythia_gguf.errors import ModelFileError, StorageError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def lines_of(*arguments: str | Path) -> dict[str, str]:
    """Text output as first word -> rest."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    pairs = [line.split(maxsplit=1) for line in result.output.splitlines() if line]
    return {pair[0]: pair[-1] for pair in pairs}


@pytest.fixture(scope="module")
def q4_k_m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy as llama.cpp's Q4_K_M: 2 layers, width 256, 300 tokens."""
    folder = tmp_path_factory.mktemp("inspect")
    return toy.quantize(toy.write(folder / "toy.gguf", toy.metadata(), toy.weights()), folder / "Q4_K_M.gguf", 15)


def test_what_a_person_wants_comes_first(q4_k_m: Path) -> None:
    lines = lines_of(q4_k_m)
    n_bytes = q4_k_m.stat().st_size
    n_weights = sum(w.size for w in toy.weights().values())
    assert list(lines)[:3] == ["name", "architecture", "quant"]
    assert lines["name"] == "Toy \u00e9\u4e16"
    assert (lines["architecture"], lines["quant"]) == ("gptneox", "Q4_K_M")
    assert lines["size"] == f"{n_bytes:,} bytes, {n_bytes / 2**30:.3f} GiB"
    assert lines["weights"].startswith(f"{n_weights:,}, ")
    assert (lines["layers"], lines["width"], lines["context"]) == ("2", "256", "64")
    assert lines["vocabulary"] == "300 tokens"
    # By the plan of llama.cpp: vectors stay F32; matrices differ by layer, but all are in.
    assert lines["tensors"].startswith("28: 18 F32, ")


def test_all_keys_are_shown_and_long_arrays_cut(q4_k_m: Path) -> None:
    lines = lines_of(q4_k_m)
    assert set(toy.metadata()) < set(lines)
    assert lines["gptneox.block_count"].split() == ["u32", "2"]
    tokens = lines["tokenizer.ggml.tokens"]
    assert tokens.startswith("array of string") and tokens.endswith("...] 300 in all")


def test_tensors_are_listed_on_request(q4_k_m: Path) -> None:
    assert "blk.0.attn_qkv.weight" not in lines_of(q4_k_m)
    row = lines_of(q4_k_m, "--tensors")["blk.0.attn_qkv.weight"]
    # 768 rows of one 256-weight block; Q4_K blocks have 144 bytes, Q5_K 176.
    assert row.startswith("768 x 256") and row.split()[3:5] in (["Q4_K", "110592"], ["Q5_K", "135168"])


def test_json_is_one_complete_object(q4_k_m: Path) -> None:
    result = run(q4_k_m, "--output-format", "json")
    shown = json.loads(result.output)
    assert result.output.count("\n") == 1
    assert (shown["schema_version"], shown["quant"], shown["n_bytes"]) == (1, "Q4_K_M", q4_k_m.stat().st_size)
    expected = toy.metadata()
    assert shown["metadata"]["tokenizer.ggml.tokens"] == expected["tokenizer.ggml.tokens"]
    assert shown["metadata"]["tokenizer.ggml.token_type"] == [1] * 300
    assert shown["metadata"]["gptneox.use_parallel_residual"] is True
    assert shown["metadata"]["gptneox.attention.layer_norm_epsilon"] == 1e-05
    assert shown["metadata_types"]["gptneox.attention.layer_norm_epsilon"] == "f32"
    by_name = {t["name"]: t for t in shown["tensors"]}
    assert {name: t["shape"] for name, t in by_name.items()} == {
        name: list(w.shape) for name, w in toy.weights().items()
    }
    bits = 8 * sum(t["n_bytes"] for t in shown["tensors"])
    assert shown["bits_per_weight"] == bits / sum(w.size for w in toy.weights().values())


def test_missing_facts_are_dashes(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(draft([], [], data=False).data)
    lines = lines_of(path)
    assert {lines[word] for word in ("name", "architecture", "quant", "layers", "vocabulary")} == {"-"}
    assert (lines["weights"], lines["tensors"]) == ("0", "0")


def test_unknown_file_type_is_shown_by_number(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(draft([Key(name=b"general.file_type", type_id=4, payload=b"\xff\3\0\0")], []).data)
    assert lines_of(path)["quant"] == "file type 1023"


def test_non_finite_numbers_are_legal_json(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    made = toy.write(path, {"a.f32": np.float32("nan"), "a.f64": np.array([-np.inf, 1.5])}, {})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    shown = json.loads(run(made, "--output-format", "json").output, parse_constant=refuse)
    assert shown["metadata"] == {"a.f32": "nan", "a.f64": ["-inf", 1.5]}


@pytest.mark.parametrize("options", [(), ("--tensors",), ("--output-format", "json")])
def test_control_characters_never_reach_the_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = tmp_path / "m.gguf"
    evil = "\x1b]0;owned\x07\x1b[2J\n\r\u202e\x9b31m [red]x[/red]".encode()
    made = [Key(name=b"general.name", type_id=STRING, payload=string(evil))]
    made += [Key(name=b"general.architecture", type_id=STRING, payload=string(evil)), *keys()[4:]]
    path.write_bytes(draft(made, tensors()).data)
    output = run(path, *options).output
    assert output.replace("\n", "").isprintable()
    assert "owned" in output and "[red]" in output


def test_text_that_the_terminal_cannot_encode_is_escaped(q4_k_m: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    command.main([str(q4_k_m)], standalone_mode=False)
    assert b"Toy \\xe9\\u4e16" in raw.getvalue()


def test_terminal_gets_a_drawn_table_with_everything_in_it(q4_k_m: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(raw, encoding="utf-8", write_through=True))
    monkeypatch.setenv("COLUMNS", "200")
    command.main([str(q4_k_m), "--tensors"], standalone_mode=False)
    text = raw.getvalue().decode()
    assert "\u2500" in text
    assert all(name in text for name in toy.weights())


def test_errors_are_left_to_the_one_place_that_prints_them(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(valid().patched("key 3 value", b"\2"))
    assert keys()[3].type_id == BOOL
    assert isinstance(run(path).exception, ModelFileError)
    assert isinstance(run(tmp_path / "none.gguf").exception, StorageError)
