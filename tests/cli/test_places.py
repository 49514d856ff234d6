"""Where results go is checked before anything else is done: every command and option that names a place to write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.command_lines import Material, make_material
from cli.test_options import options_of
from hub.loopback import loopback_hub
from pythia_gguf.cli.main import COMMANDS
from pythia_gguf.engine import model as engine

PLACES = {"-o", "--out", "--to"}
# Command -> whether a file is written there, or files into a folder.
WRITES_A_FILE = {
    "imatrix": True,
    "measure": True,
    "eval": True,
    "plot": False,
    "quantize": False,
    "export": False,
    "data dedup": False,
    "train": False,
    "data trace": True,
    "data effect": True,
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with loopback_hub() as hub:
        yield make_material(tmp_path_factory.mktemp("places"), hub)


def with_place(arguments: list[str | Path], place: Path) -> list[str | Path]:
    at = next(i for i, a in enumerate(arguments) if a in PLACES)
    return [*arguments[: at + 1], place, *arguments[at + 2 :]]


def is_place(option: click.Parameter) -> bool:
    return bool(PLACES & set(option.opts)) and isinstance(option.type, click.Path)


def test_all_options_that_name_a_place_are_here():
    named = {name for name in COMMANDS for option in options_of(name) if is_place(option)}
    assert named == WRITES_A_FILE.keys()


@pytest.mark.parametrize("name", WRITES_A_FILE)
def test_a_place_that_cannot_be_written_is_one_line_before_a_model_is_loaded(
    pythia, material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """A folder, a missing folder, a file in place of a folder, one that lets nobody write, a name that is too long."""

    def loaded(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr(engine, "load", loaded)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    is_file = WRITES_A_FILE[name]
    places = [tmp_path / "file" / "x", Path("/proc/nobody/x") if os.geteuid() == 0 else read_only(tmp_path)]
    places += [tmp_path / "folder", tmp_path / "missing" / "x", Path(os.devnull)] if is_file else [tmp_path / "file"]
    places += [tmp_path / ("x" * 300)]
    for place in places:
        code, out, err = pythia(*name.split(), *with_place(material.lines(tmp_path)[name], place))
        assert (code, out) == (74, ""), (place, err)
        assert err.startswith(f"Error: {place}: ") and err.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} <= {"folder", "file", "locked"}
    assert (tmp_path / "file").read_text() == "kept"
    assert not list((tmp_path / "folder").iterdir())
    assert not Path(os.devnull).is_file()


def read_only(folder: Path) -> Path:
    """Who may do everything may write there too, so for root /proc stands for it."""
    (folder / "locked").mkdir(mode=0o500)
    return folder / "locked" / "x"
