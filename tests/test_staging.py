"""A folder whose files appear together, whatever kind of files they are: here pieces of text and an index of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pythia_gguf.errors import LockedError, StorageError
from pythia_gguf.files import write_text
from pythia_gguf.staging import Staging

PIECES = {"a.txt": "one", "b.txt": "two"}
LISTS = {"about.md": "Two pieces.", "index.json": "[]"}


def staging(folder: Path) -> Staging:
    return Staging(folder, name=".parts", files=re.compile(r"\w\.txt"), lists=tuple(LISTS))


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def write(folder: Path, pieces: dict[str, str], lists: dict[str, str]) -> None:
    with staging(folder) as parts:
        for name, text in pieces.items():
            write_text(parts.path / name, text)
        parts.publish(lists)


def test_files_appear_together_and_nothing_is_left_over(tmp_path: Path):
    write(tmp_path, PIECES, LISTS)
    assert contents(tmp_path) == PIECES | LISTS
    assert {path.name for path in tmp_path.iterdir()} == {*PIECES, *LISTS}
    write(tmp_path, {"b.txt": "three"}, LISTS | {"index.json": "[1]"})
    assert contents(tmp_path) == PIECES | LISTS | {"b.txt": "three", "index.json": "[1]"}


def test_a_run_that_ends_before_the_last_list_leaves_the_folder_as_it_was(tmp_path: Path):
    write(tmp_path, PIECES, LISTS)
    with pytest.raises(KeyError, match=r"index\.json"):
        write(tmp_path, {"a.txt": "new"}, {"about.md": "One piece."})
    assert contents(tmp_path) == PIECES | LISTS


@pytest.mark.parametrize("n_moved", range(4))
def test_a_run_that_dies_while_files_move_is_finished_by_the_next(tmp_path: Path, n_moved: int):
    """Whatever was moved already: the folder as a process that was killed then has left it."""
    (tmp_path / ".parts").mkdir()
    texts = list((PIECES | LISTS).items())
    for i, (name, text) in enumerate(texts):
        (tmp_path / name if i < n_moved else tmp_path / ".parts" / name).write_text(text)
    with staging(tmp_path):
        pass
    assert contents(tmp_path) == PIECES | LISTS


def test_what_is_somebody_elses_stays_in_the_hidden_folder(tmp_path: Path):
    (tmp_path / ".parts").mkdir()
    for name in ("mine.gguf", "a.txt", "about.md", ".a.txt.7.0123abcd.partial"):
        (tmp_path / ".parts" / name).write_text("x")
    write(tmp_path, PIECES, LISTS)
    assert contents(tmp_path) == PIECES | LISTS | {".parts/mine.gguf": "x"}


def test_one_writer_at_a_time(tmp_path: Path):
    with staging(tmp_path), pytest.raises(LockedError, match="is writing here"):
        staging(tmp_path).__enter__()
    write(tmp_path, PIECES, LISTS)


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path):
    (tmp_path / "about.md").mkdir()
    with staging(tmp_path) as parts:
        with pytest.raises(StorageError, match=r"about\.md: is a folder\. Move it away"):
            parts.check_room(PIECES, 1)
        (tmp_path / "about.md").rmdir()
        parts.check_room(PIECES, 1)
        with pytest.raises(StorageError, match="the files need .* are free"):
            parts.check_room(PIECES, 1 << 60)


def test_another_name_of_a_file_that_is_written_or_in_its_place(tmp_path: Path):
    write(tmp_path, {"a.txt": "one"}, LISTS)
    with staging(tmp_path) as parts:
        write_text(parts.path / "b.txt", "two")
        parts.link("a.txt", "c.txt", or_copy=True)
        parts.link("b.txt", "d.txt", or_copy=True)
        parts.publish(LISTS | {"index.json": "[4]"})
    assert (tmp_path / "c.txt").samefile(tmp_path / "a.txt") and (tmp_path / "d.txt").samefile(tmp_path / "b.txt")
