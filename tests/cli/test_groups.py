"""Commands of two words: a folder of cli/ is a group, and everything that a command has its commands have too.

The group here is a real package in a folder of its own, put into the lists as a new group of the program would be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pythia_gguf.cli
from cli.test_options import options_of
from patience import HANGS_S
from pythia_gguf.cli.main import COMMANDS, GROUPS, find_command

GROUP = {"zoo": "What models were trained on."}
LISTED = {"zoo find": "Find a text.", "zoo show-batch": "Show a batch."}
FIND = '''
import click
from pythia_gguf.cli.command import Command
from pythia_gguf.errors import Argument, ModelFileError, UsageError

@click.command("find", cls=Command)
@click.argument("texts", nargs=-1)
@click.option("--most", "n_most", type=int, default=3)
@click.option("--damaged", is_flag=True)
def command(texts, n_most, damaged):
    """Find a text.

    pythia zoo find "the sky"
    """
    if damaged:
        raise ModelFileError("is cut", path="shard-0")
    if n_most < 1:
        raise UsageError(Argument("n_most"), f" must be at least 1, got {n_most}")
    click.echo(f"{n_most} of {' '.join(texts)}")
'''
SHOW_BATCH = FIND.replace('"find"', '"show-batch"')
# A program with the group; its last line says which of its files were loaded.
PROGRAM = """
import sys
import pythia_gguf.cli
from pythia_gguf.cli import main as program
pythia_gguf.cli.__path__.append({path!r})
program.GROUPS |= {groups!r}
program.COMMANDS |= {commands!r}
sys.argv = ["pythia", *sys.argv[1:]]
try:
    program.main()
finally:
    loaded = [n for n in sys.modules if n.startswith(("pythia_gguf.cli.zoo", "pythia_gguf.press", "numpy"))]
    print(sorted(loaded), file=sys.__stderr__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where cli/ has the group."""
    package = tmp_path / "cli" / "zoo"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "find.py").write_text(FIND)
    (package / "show_batch.py").write_text(SHOW_BATCH)
    return package.parent


@pytest.fixture
def group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The group in this process."""
    monkeypatch.setattr(pythia_gguf.cli, "__path__", [*pythia_gguf.cli.__path__, str(folder)])
    for table, more in ((GROUPS, GROUP), (COMMANDS, LISTED)):
        for name, said in more.items():
            monkeypatch.setitem(table, name, said)
    yield
    for name in [n for n in sys.modules if n.startswith("pythia_gguf.cli.zoo")]:
        del sys.modules[name]


def test_both_lists_are_of_files_that_are_there():
    """Every file with a command is in the list, and every group has commands."""
    folder = Path(pythia_gguf.cli.__path__[0])
    files = [p for p in folder.rglob("*.py") if "\ndef command(" in p.read_text("utf-8") and p.name != "command.py"]
    named = {" ".join(p.relative_to(folder).with_suffix("").parts).replace("_", "-") for p in files}
    assert named == set(COMMANDS)
    assert {name.rpartition(" ")[0] for name in COMMANDS} - {""} == set(GROUPS)


def test_a_command_of_a_group_runs_and_has_help(pythia, group: None):
    assert pythia("zoo", "find", "the", "sky") == (0, "3 of the sky\n", "")
    assert pythia("zoo", "show-batch", "--most", "1", "--", "-x") == (0, "1 of -x\n", "")
    for flag in ("-h", "--help"):
        code, out, _ = pythia("--help")
        assert (code, "zoo              What models were trained on." in out) == (0, True)
        assert "Find a text" not in out
        code, out, _ = pythia("zoo", flag)
        assert (code, [line.split()[0] for line in out.splitlines()[-2:]]) == (0, ["find", "show-batch"])
        assert "pythia zoo [OPTIONS] COMMAND" in out and GROUP["zoo"] in out
        code, out, _ = pythia("zoo", "find", flag)
        assert code == 0 and "pythia zoo find [OPTIONS] [TEXTS]" in out
    # Without a command it answers as `pythia` does.
    (code, out, err), (bare, *_) = pythia("zoo"), pythia()
    assert (code, "show-batch" in out + err) == (bare, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("zoo fnd", 2, "Error: no such command 'zoo fnd'. Did you mean find?"),
        ("zoo showbatch", 2, "Error: no such command 'zoo showbatch'. Did you mean show-batch?"),
        ("zoo quantize", 2, "Error: no such command 'zoo quantize'"),
        ("zo find", 2, "Error: no such command 'zo'. Did you mean zoo"),
        ("show-batch x", 2, "Error: no such command 'show-batch'. Did you mean zoo show-batch?"),
        ("zoo find x --most 0", 2, "Error: --most must be at least 1, got 0"),
        ("zoo find x --most 1 --most 2", 2, "Error: --most is given 2 times, and only one can count"),
        ("zoo find -x", 2, "Error: No such option '-x'. Put \"--\" before an argument that begins with a dash."),
        ("zoo find x --damaged", 65, "Error: shard-0: is cut"),
    ],
)
def test_errors_name_what_the_command_of_a_group_has(pythia, group: None, words: str, code: int, said: str):
    got, out, err = pythia(*words.split())
    assert (got, out) == (code, "")
    assert err.splitlines()[-1].startswith(said), err


def test_tests_of_every_command_see_it(group: None):
    """What goes over `COMMANDS` asks these."""
    assert {o.name for o in options_of("zoo find")} == {"n_most", "damaged"}
    assert find_command("zoo show-batch").name == "show-batch"
    assert set(LISTED) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        ("--help", []),
        ("zoo --help", []),
        ("zoo", []),
        ("zoo fnd", []),
        ("zoo find x", ["pythia_gguf.cli.zoo", "pythia_gguf.cli.zoo.find"]),
    ],
)
def test_no_file_of_a_group_is_loaded_before_its_command_is_called(folder: Path, words: str, loaded: list[str]):
    assert run(folder, words.split()).stderr.splitlines()[-1] == str(loaded)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pythia zo", {"zoo"}),
        ("pythia zoo ", {"find", "show-batch"}),
        ("pythia zoo sh", {"show-batch"}),
        ("pythia zoo find --", {"--most", "--damaged", "--help"}),
        ("pythia zoo nonsense --q", set()),
    ],
)
def test_commands_of_a_group_complete(folder: Path, words: str, completed: set[str]):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_PYTHIA_COMPLETE": "bash_complete"}
    done = run(folder, [], asked)
    assert {line.partition(",")[2] for line in done.stdout.split()} == completed
    assert len(done.stderr.splitlines()) == 1


def run(folder: Path, words: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(path=str(folder), groups=GROUP, commands=LISTED)
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )
