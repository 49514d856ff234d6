"""Errors: one message, said by each face in its own words; and no message of the library that speaks of flags."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pythia_gguf.arguments import checked
from pythia_gguf.cli.main import COMMANDS, find_command, flag_of
from pythia_gguf.errors import Argument, ModelFileError, UsageError

PACKAGE = Path(__file__).parents[1] / "src" / "pythia_gguf"
LIBRARY = [p for p in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "cli" not in p.parents]
# Arguments that only Python has: no command passes them on. The value says why.
PYTHON_ONLY = {
    "ids": "tokens; commands take texts",
    "quant": "commands take MODEL:QUANT",
    "revision": "commands take NAME@STEP",
    "kv_bytes": "a budget in bytes for one session; commands take lengths",
    "logit_bias": "numbers by token; commands take texts",
    "hidden_act": "the name for config.json; the command takes the form of the GELU",
    "apply_chat_template": "an option of lm_eval.simple_evaluate",
}


def commands() -> dict[str, click.Command]:
    return {name: find_command(name) for name in COMMANDS}


def messages(path: Path) -> Iterator[str]:
    """Texts of a file that are no docstrings; of an f-string what stands in it."""
    tree = ast.parse(path.read_text("utf-8"))
    seen = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):  # from outside to inside
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [
            p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str) and id(p) not in seen
        ]
        seen |= {id(p) for p in parts}
        if texts:
            yield "".join(texts)


def arguments() -> set[str]:
    """Names in every `Argument("name")` of the library, and the fields that `check_fields` is told of."""
    # The fields of a recipe are those of a YAML file.
    others = [p for p in LIBRARY if p.name != "recipe.py"]
    calls = [n for p in others for n in ast.walk(ast.parse(p.read_text("utf-8"))) if isinstance(n, ast.Call)]
    first = [c.args[0] for c in calls if ast.unparse(c.func) in ("Argument", "one_of") and c.args]
    checked = {k.arg for c in calls if ast.unparse(c.func) == "check_fields" for k in c.keywords if k.arg is not None}
    return {a.value for a in first if isinstance(a, ast.Constant)} | checked


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_message_of_the_library_names_a_flag(path: Path):
    """Flags of other programs, and of the command that a card shows its readers, are named with the program.

    A text that is a flag and no more is a word of that command.
    """
    flags = [m for m in messages(path) if re.search(r"(?:^|[ `'])--[a-z]{3}", m) and not re.fullmatch(r"--[\w-]+", m)]
    allowed = re.compile(r"llama-gguf-split --merge|sha256sum|--ignore-missing|pythia (quantize|measure|eval)")
    assert [text for text in flags if not allowed.search(text)] == []


def test_every_argument_in_a_message_has_a_flag_somewhere():
    names = {p.name for c in commands().values() for p in c.params}
    assert arguments() - names == set(PYTHON_ONLY)


def test_each_face_says_it_in_its_own_words():
    error = UsageError(Argument("max_tokens"), " must be at least 1, got 0", (". Use ", Argument("force", True)))
    assert str(error) == "max_tokens must be at least 1, got 0. Use force=True"
    assert error.argument == "max_tokens"
    generate, quantize = (commands()[name] for name in ("generate", "quantize"))
    assert error.said(lambda a: flag_of(generate, a)) == "--max-tokens must be at least 1, got 0"
    assert error.said(lambda a: flag_of(quantize, a)) == "max_tokens must be at least 1, got 0. Use --force"


def test_flags_are_those_of_the_command():
    found = {
        ("generate", "cache"): "--kv",
        ("quantize", "keep_source"): "--cache",
        ("measure", "n_windows"): "--chunks",
        ("quantize", "source"): "SOURCE",
        ("verify", "force"): None,
    }
    assert {(c, n): flag_of(commands()[c], Argument(n)) for c, n in found} == found
    assert flag_of(commands()["export"], Argument("dtype", "float32")) == "--dtype float32"


@pytest.mark.parametrize(
    "error",
    [
        UsageError(Argument("threads"), " must be at least 1"),
        ModelFileError("cut short, ", Argument("force", True), path="a.gguf", field="header", offset=3),
    ],
)
def test_errors_come_back_from_other_processes(error: UsageError | ModelFileError):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again).keys()) == (type(error), str(error), vars(error).keys())
    assert again.said(lambda a: a.name.upper()) == error.said(lambda a: a.name.upper())


def test_a_function_advises_only_what_it_takes():
    """Of nested functions the one that was called counts; commands hear the whole message and choose by themselves."""

    @checked
    def narrow(n: int) -> None:
        raise UsageError("no", (". Use ", Argument("force", True)), (", or less ", Argument("n")))

    @checked
    def wide(n: int, force: bool = False) -> None:
        narrow(n)

    for call, says in ((narrow, "no, or less n"), (wide, "no. Use force=True, or less n")):
        with pytest.raises(UsageError) as e:
            call(1)
        assert str(e.value) == says
        assert e.value.said(lambda a: f"--{a.name}") == "no. Use --force, or less --n"


def test_what_a_file_says_stays_on_one_line_beside_arguments():
    error = ModelFileError("bad\nname ", Argument("force", True), path="a\nb")
    assert str(error) == "a\\nb: bad\\nname force=True"
