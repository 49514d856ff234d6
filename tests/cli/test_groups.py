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

GROUP = {"data": "What models were trained on."}
LISTED = {"data find": "Find a text.", "data show-batch": "Show a batch."}
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

    pythia data find "the sky"
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
    loaded = [n for n in sys.modules if n.startswith(("pythia_gguf.cli.data", "pythia_gguf.press", "numpy"))]
    print(sorted(loaded), file=sys.__stderr__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where cli/ has the group."""
    package = tmp_path / "cli" / "data"
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
    for name in [n for n in sys.modules if n.startswith("pythia_gguf.cli.data")]:
        del sys.modules[name]


def test_both_lists_are_of_files_that_are_there():
    """Every file with a command is in the list, and every group has commands."""
    folder = Path(pythia_gguf.cli.__path__[0])
    files = [p for p in folder.rglob("*.py") if "\ndef command(" in p.read_text("utf-8") and p.name != "command.py"]
    named = {" ".join(p.relative_to(folder).with_suffix("").parts).replace("_", "-") for p in files}
    assert named == set(COMMANDS)
    assert {name.rpartition(" ")[0] for name in COMMANDS} - {""} == set(GROUPS)


def test_a_command_of_a_group_runs_and_has_help(pythia, group: None):
    assert pythia("data", "find", "the", "sky") == (0, "3 of the sky\n", "")
    assert pythia("data", "show-batch", "--most", "1", "--", "-x") == (0, "1 of -x\n", "")
    for flag in ("-h", "--help"):
        code, out, _ = pythia("--help")
        assert (code, "data             What models were trained on." in out) == (0, True)
        assert "Find a text" not in out
        code, out, _ = pythia("data", flag)
        assert (code, [line.split()[0] for line in out.splitlines()[-2:]]) == (0, ["find", "show-batch"])
        assert "pythia data [OPTIONS] COMMAND" in out and GROUP["data"] in out
        code, out, _ = pythia("data", "find", flag)
        assert code == 0 and "pythia data find [OPTIONS] [TEXTS]" in out
    # Without a command it answers as `pythia` does.
    (code, out, err), (bare, *_) = pythia("data"), pythia()
    assert (code, "show-batch" in out + err) == (bare, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("data fnd", 2, "Error: no such command 'data fnd'. Did you mean find?"),
        ("data showbatch", 2, "Error: no such command 'data showbatch'. Did you mean show-batch?"),
        ("data quantize", 2, "Error: no such command 'data quantize'"),
        ("dat find", 2, "Error: no such command 'dat'. Did you mean data"),
        ("find x", 2, "Error: no such command 'find'. Did you mean data find?"),
        ("data find x --most 0", 2, "Error: --most must be at least 1, got 0"),
        ("data find x --most 1 --most 2", 2, "Error: --most is given 2 times, and only one can count"),
        ("data find -x", 2, "Error: No such option '-x'. Put \"--\" before an argument that begins with a dash."),
        ("data find x --damaged", 65, "Error: shard-0: is cut"),
    ],
)
def test_errors_name_what_the_command_of_a_group_has(pythia, group: None, words: str, code: int, said: str):
    got, out, err = pythia(*words.split())
    assert (got, out) == (code, "")
    assert err.splitlines()[-1].startswith(said), err


def test_tests_of_every_command_see_it(group: None):
    """What goes over `COMMANDS` asks these."""
    assert {o.name for o in options_of("data find")} == {"n_most", "damaged"}
    assert find_command("data show-batch").name == "show-batch"
    assert set(LISTED) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        ("--help", []),
        ("data --help", []),
        ("data", []),
        ("data fnd", []),
        ("data find x", ["pythia_gguf.cli.data", "pythia_gguf.cli.data.find"]),
    ],
)
def test_no_file_of_a_group_is_loaded_before_its_command_is_called(folder: Path, words: str, loaded: list[str]):
    assert run(folder, words.split()).stderr.splitlines()[-1] == str(loaded)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pythia da", {"data"}),
        ("pythia data ", {"find", "show-batch"}),
        ("pythia data sh", {"show-batch"}),
        ("pythia data find --", {"--most", "--damaged", "--help"}),
        ("pythia data nonsense --q", set()),
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
