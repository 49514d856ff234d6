"""A folder whose files appear together: they stay in a hidden folder inside it until every one of them is complete.

Some of the files are lists of the others. The last list is written last and says that all files are there; only then do
they move to their places. A run that dies earlier leaves the folder as it was; the next run finishes the work of one
that dies while files move. So a final name always holds a whole file, and the lists describe the files as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from pythia_gguf.errors import Argument, StorageError
from pythia_gguf.files import (
    CHUNK_BYTES,
    PARTIAL,
    fsync_folder,
    read_whole,
    remove_abandoned,
    storage_error,
    write_all,
    write_beside,
    write_text,
)
from pythia_gguf.lock import lock


class Staging:
    """The hidden folder in which a run writes files; the run is alone in it while the block of `with` runs.

    folder  the files will move here
    path    the files are written here, under the same names
    """

    def __init__(self, folder: Path, *, name: str, files: re.Pattern[str], lists: Sequence[str]) -> None:
        """Take a folder that exists.

        name   name of the hidden folder, and with ".lock" after it, of the lock
        files  matches the names of files that a run may leave; we touch nothing else in the hidden folder
        lists  names of the files that list the others; the last one says that all are there
        """
        self.folder, self.path = folder, folder / name
        self._files, self._lists, self._last = files, tuple(lists), lists[-1]

    def __enter__(self) -> Self:
        """Finish or remove the work of killed runs; raises LockedError, and StorageError from the disk."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock(self.path.with_name(f"{self.path.name}.lock")))
            stack.callback(self._clear_incomplete)
            self._begin()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove files that are not complete."""
        self._held.close()

    def link(self, original: str, alias: str, *, or_copy: bool) -> None:
        """Give a second name to a file, here or in its place, unless it has that name already.

        or_copy  copy the file where the file system has no hard links
        """
        found = self.path / original if (self.path / original).exists() else self.folder / original
        if (self.folder / alias).exists() and os.path.samefile(found, self.folder / alias):
            return
        try:
            os.link(found, self.path / alias)
        except OSError:
            if not or_copy:
                return
            with write_beside(self.path / alias) as out, open(found, "rb") as data:
                while chunk := data.read(CHUNK_BYTES):
                    write_all(out, chunk)  # an unbuffered file may take less than it is given

    def check_room(self, names: Iterable[str], n_bytes: int) -> None:
        """Raises StorageError when a folder has the name of a file, or `n_bytes` of files do not fit.

        1 % is added for what the file system needs for itself.
        """
        for name in (*names, *self._lists):
            if (self.folder / name).is_dir():
                raise StorageError(
                    f"{self.folder / name}: is a folder. Move it away", (", or choose another ", Argument("out"))
                )
        needed = n_bytes + n_bytes // 100
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise StorageError(
                f"{self.folder}: the files need {needed:,} bytes, {free:,} are free. Free some space",
                (", or choose another ", Argument("out")),
            )

    def publish(self, lists: Mapping[str, str]) -> None:
        """Write the lists, name -> text, and move all files to their places; the next run finishes if this one dies.

        Does nothing where nothing is new. Raises StorageError when the disk refuses.
        """
        for name in self._lists[:-1]:
            if not self._is_in_place(name, lists[name]):
                write_text(self.path / name, lists[name])
        if os.listdir(self.path) or not self._is_in_place(self._last, lists[self._last]):
            write_text(self.path / self._last, lists[self._last])
            self._move()

    def _is_in_place(self, name: str, text: str) -> bool:
        place = self.folder / name
        return place.is_file() and read_whole(place) == text.encode()

    def _begin(self) -> None:
        remove_abandoned(self.folder)
        if self._is_complete():
            self._drop_older()
            self._move()
        try:
            self._clear()
            self.path.mkdir(exist_ok=True)
        except OSError as e:
            raise storage_error(self.path, e) from e

    def _is_complete(self) -> bool:
        return (self.path / self._last).exists()

    def _drop_older(self) -> None:
        """Remove files whose place another file has taken since the run was killed."""
        killed = (self.path / self._last).stat().st_mtime_ns
        for name in os.listdir(self.path):
            place = self.folder / name
            if name != self._last and place.exists() and place.stat().st_mtime_ns > killed:
                (self.path / name).unlink()

    def _move(self) -> None:
        try:
            files = sorted(name for name in os.listdir(self.path) if self._files.fullmatch(name))
            lists = [name for name in self._lists if (self.path / name).exists()]
            # 1. Remove old lists of the files that are replaced now, so that no list ever names missing files.
            for name in reversed(lists):
                (self.folder / name).unlink(missing_ok=True)
            fsync_folder(self.folder)
            # 2. Move the files, then the lists of them.
            for name in (*files, *lists[:-1]):
                os.replace(self.path / name, self.folder / name)
            fsync_folder(self.folder)
            # 3. Move the last list: after it nothing is left to move.
            os.replace(self.path / self._last, self.folder / self._last)
            fsync_folder(self.folder)
        except OSError as e:
            raise storage_error(self.folder, e) from e

    def _clear_incomplete(self) -> None:
        if not self._is_complete():
            with contextlib.suppress(OSError):  # the next run tries again
                self._clear()

    def _clear(self) -> None:
        """Remove our files, and the folder if it is empty then."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                if self._files.fullmatch(name) or name in self._lists or PARTIAL.fullmatch(name):
                    (self.path / name).unlink()
        with contextlib.suppress(OSError):  # not there, or not empty
            self.path.rmdir()
