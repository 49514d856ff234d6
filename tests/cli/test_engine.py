"""`pythia generate`, `score` and `bench` as a person meets them."""

from __future__ import annotations

import io
import json
import sys

import click
import pytest

from engine.nano import nano_files
from pythia_gguf import load
from pythia_gguf.cli.main import COMMANDS, find_command

GREEDY = ("--temperature", "0", "--max-tokens", "12")


def test_generate_prints_prompt_and_text_and_figures_on_stderr(pythia):
    path = nano_files()["Q4_K_M"]
    code, out, err = pythia("generate", path, "def main(", *GREEDY)
    text = load(path, threads=2).generate("def main(", temperature=0, max_tokens=12).text
    assert (code, out) == (0, f"def main({text}\n")
    assert err.splitlines()[-1].startswith("[12 tokens, seed ")
    assert pythia("generate", path, "def main(", *GREEDY, "--no-echo", "--quiet") == (0, text + "\n", "")


def test_generate_as_json_can_be_made_again(pythia):
    path = nano_files()["Q4_K_M"]
    first = json.loads(pythia("generate", path, "import", "--logprobs", "2", "--output-format", "json")[1])
    again = json.loads(
        pythia("generate", path, "import", "--seed", str(first["seed"]), "--threads", "1", "--output-format", "json")[1]
    )
    assert again["text"] == first["text"]
    assert (first["quant"], first["activations"], first["gelu"]) == ("Q4_K_M", "int8", "erf")
    assert first["finish_reason"] == "length"
    assert len(first["logprobs"]) == len(first["tokens"]) == 64
    assert len(first["logprobs"][0]["top"]) == 2
    assert again["logprobs"] is None


def test_prompt_from_stdin(pythia, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"def main(")))
    path = nano_files()["Q4_K_M"]
    assert (
        pythia("generate", path, "-", *GREEDY, "--quiet")[1]
        == pythia("generate", path, "def main(", *GREEDY, "--quiet")[1]
    )


@pytest.mark.parametrize(
    ("read", "prompt"),
    [
        ("def f(\n", "def f("),
        ("def f(\r\n", "def f("),
        ("def f(\n\n", "def f(\n"),
        (" def f( ", " def f( "),
        ("\n", ""),
    ],
)
def test_one_line_end_of_stdin_is_the_files(pythia, monkeypatch: pytest.MonkeyPatch, read: str, prompt: str):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(read.encode())))
    args = ("--max-tokens", "1", "--quiet", "--output-format", "json")
    assert json.loads(pythia("generate", nano_files()["Q4_K_M"], "-", *args)[1])["prompt"] == prompt


def test_stop_texts_have_escapes(pythia):
    """What stands in single quotes of a shell; the greedy text is the same, cut at its first new line."""
    path = nano_files()["Q4_K_M"]
    args = ("generate", path, "def main(", "--temperature", "0", "--max-tokens", "40", "--quiet", "--no-echo")
    whole = pythia(*args)[1]
    assert "\n" in whole.rstrip("\n")
    assert pythia(*args, "--stop", r"\n")[1] == whole[: whole.index("\n")] + "\n"
    assert pythia(*args, "--stop", r"\\n", "--stop", r"\d")[1] == whole
    assert pythia(*args, "--stop", "\n")[1] == whole[: whole.index("\n")] + "\n"


def test_a_prompt_that_begins_with_a_dash_comes_after_two(pythia):
    path = nano_files()["Q4_K_M"]
    code, out, err = pythia("generate", path, "- milk", *GREEDY)
    assert (code, out) == (2, "")
    assert 'Put "--" before an argument that begins with a dash.' in err
    code, out, err = pythia("generate", path, *GREEDY, "--", "- milk")
    assert (code, out.startswith("- milk")) == (0, True), err


def test_every_command_with_arguments_tells_of_the_two_dashes(pythia):
    for name in COMMANDS:
        code, _, err = pythia(*name.split(), "-?!")
        takes_arguments = any(isinstance(p, click.Argument) for p in find_command(name).params)
        assert (code, 'Put "--"' in err) == (2, takes_arguments), name


def test_logprobs_are_a_table(pythia):
    code, out, _ = pythia("generate", nano_files()["Q8_0"], "for i", *GREEDY, "--logprobs", "2", "--quiet")
    assert code == 0
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:3] == ["token", "id", "logprob"])
    assert len(lines) - head - 1 == 12


def test_score_tells_each_continuation(pythia):
    path = nano_files()["Q8_0"]
    args = ("score", path, "--prompt", "import", "--continuation", " sys", "--continuation", " banana")
    code, out, _ = pythia(*args)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["continuation", "'", "'"]
    told = json.loads(pythia(*args, "--output-format", "json")[1])
    expected = load(path, threads=2).score([("import", " sys"), ("import", " banana")])
    assert [s["logprob"] for s in told["scores"]] == [s.logprob for s in expected]
    assert told["encoding"] == "joint"


def test_bench_measures(pythia):
    path = nano_files()["Q4_K_M"]
    args = ("bench", path, "--prompt", "32", "--tokens", "4", "--repeats", "1", "--batch", "2", "--depth", "3")
    told = json.loads(pythia(*args, "--output-format", "json")[1])
    assert told.keys() >= {"prefill_tokens_per_s", "decode_tokens_per_s", "load_s", "rss_bytes", "threads"}
    assert min(told[k] for k in ("prefill_tokens_per_s", "decode_tokens_per_s", "load_s", "rss_bytes")) > 0
    code, out, _ = pythia(*args)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["prefill", "decode", "weights", "loading", "memory"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("generate", "none.gguf", "a"), 74, "none.gguf: cannot open: No such file or directory"),
        (("generate", "docs", "a"), 74, "docs/config.json: cannot open: No such file or directory"),
        (("generate", "README.md", "a"), 65, "README.md: byte 0: header: bad magic"),
        (("generate", "NANO"), 2, "Missing argument 'PROMPT'"),
        (("generate", "NANO", "a", "--top-p", "2"), 2, "--top-p must be between 0 and 1, got 2.0"),
        (("generate", "NANO", "a", "--max-tokens", "0"), 2, "--max-tokens must be at least 1, got 0"),
        (("generate", "NANO", "a", "--max-tokens", "600"), 2, "do not fit into the context of 512"),
        (("generate", "NANO", "a", "--threads", "0"), 2, "--threads must be at least 1, got 0"),
        (("generate", "NANO", "a", "--gelu", "tan"), 2, "'tan' is not one of 'auto', 'erf', 'tanh'"),
        (("generate", "NANO", "a", "--temprature", "1"), 2, "No such option"),
        (("score", "NANO", "--prompt", "a"), 2, "Missing option '--continuation'"),
        (("score", "NANO", "--prompt", "a", "--continuation", ""), 2, "--continuation must have at least one token"),
        (("bench", "NANO", "--tokens", "0"), 2, "--tokens must be at least 1, got 0"),
        (("bench", "NANO", "--depth", "500"), 2, "564 tokens do not fit into the context of 512"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(pythia, args: tuple[str, ...], code: int, message: str):
    found, out, err = pythia(*(str(nano_files()["Q4_K_M"]) if a == "NANO" else a for a in args))
    assert found == code, err
    assert message in err
    assert out == ""
    assert "Traceback" not in err
