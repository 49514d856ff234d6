"""What may be chosen by name is in one list: commands offer it, Python checks it, tables have an entry for each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pythia_gguf import choices
from pythia_gguf.cli.main import COMMANDS, find_command
from pythia_gguf.engine.op_builder import _GELUS
from pythia_gguf.export.folder import DTYPES
from pythia_gguf.kernels.matmul import _QUANTIZERS
from pythia_gguf.serve.chat import FORMATS

PACKAGE = Path(choices.__file__).parent
LISTS = {
    name: set(value) - {"auto"} for name, value in vars(choices).items() if name.isupper() and isinstance(value, tuple)
}
LIST_OF = {
    "gelu": choices.ANY_GELU,
    "activations": choices.ACTIVATIONS,
    "cache": choices.CACHES,
    "encoding": choices.ENCODINGS,
    "dtype": tuple(DTYPES),
    "chat_format": choices.CHAT_FORMATS,
}
# What a command offers beside them.
BESIDE = {"measure": {"both"}}


def options() -> Iterator[tuple[str, click.Parameter]]:
    for name in COMMANDS:
        yield from ((name, p) for p in find_command(name).params if isinstance(p.type, click.Choice))


def test_commands_offer_what_the_lists_have():
    seen = set()
    for command, option in options():
        assert isinstance(option.type, click.Choice)
        offered = set(option.type.choices) - BESIDE.get(command, set())
        if option.name in LIST_OF:
            seen.add(option.name)
            assert offered <= set(LIST_OF[option.name]), (command, option.name)
            assert len(offered) > 1
        else:
            assert not any(len(offered & names) > 1 for names in LISTS.values()), (command, option.name)
    assert seen == set(LIST_OF)


def test_tables_have_an_entry_for_each():
    assert tuple(_QUANTIZERS) == choices.ACTIVATIONS
    assert tuple(_GELUS) == choices.GELUS
    assert tuple(FORMATS) == choices.CHAT_FORMATS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_other_file_lists_them_again(path: Path):
    if path.name == "choices.py":
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            words = {e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)}
            assert not any(names <= words for names in LISTS.values()), f"line {node.lineno}: {sorted(words)}"
