"""A folder whose files appear together: they lie in a hidden folder inside until every one of them is complete.

Some of the files tell of the others. The last of these is written last and says that all are there; only then do they
move to their places. A run that dies before leaves the folder as it was; one that dies while files move is finished by
the next. So a final name always holds a whole file, and what tells of the files tells of them as they are.
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
    """Where a run writes the files of a folder, which it has to itself while the block of `with` runs.

    folder  where they will be
    path    where they are written, under the same names
    """

    def __init__(self, folder: Path, *, name: str, files: re.Pattern[str], lists: Sequence[str]) -> None:
        """For a folder that exists.

        name   of the hidden folder; with ".lock" after it, of the lock
        files  matches the names of files that a run may leave; anything else in the hidden folder is somebody else's
        lists  names of the files that tell of the others; the last one says that all are there
        """
        self.folder, self.path = folder, folder / name
        self._files, self._lists, self._last = files, tuple(lists), lists[-1]

    def __enter__(self) -> Self:
        """Finish or clear away what killed runs have left; raises LockedError, and StorageError from the disk."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock(self.path.with_name(f"{self.path.name}.lock")))
            stack.callback(self._clear_incomplete)
            self._begin()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        """Clear away what is not complete."""
        self._held.close()

    def link(self, original: str, alias: str, *, or_copy: bool) -> None:
        """Another name for the bytes of a file here or in its place, unless it is one.

        or_copy  where there are no hard links
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
        """Write the lists, name -> text, and give all files their places, which they get by this run or the next.

        Nothing is done where nothing is new. Raises StorageError when the disk refuses.
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
        """Forget files in whose place somebody has put another after the run was killed."""
        killed = (self.path / self._last).stat().st_mtime_ns
        for name in os.listdir(self.path):
            place = self.folder / name
            if name != self._last and place.exists() and place.stat().st_mtime_ns > killed:
                (self.path / name).unlink()

    def _move(self) -> None:
        try:
            files = sorted(name for name in os.listdir(self.path) if self._files.fullmatch(name))
            lists = [name for name in self._lists if (self.path / name).exists()]
            # 1. Lists of what is replaced now go first, so that no list ever tells of files that are not there.
            for name in reversed(lists):
                (self.folder / name).unlink(missing_ok=True)
            fsync_folder(self.folder)
            # 2. The files, then the lists that tell of them.
            for name in (*files, *lists[:-1]):
                os.replace(self.path / name, self.folder / name)
            fsync_folder(self.folder)
            # 3. The last list: from now on there is nothing left to move.
            os.replace(self.path / self._last, self.folder / self._last)
            fsync_folder(self.folder)
        except OSError as e:
            raise storage_error(self.folder, e) from e

    def _clear_incomplete(self) -> None:
        if not self._is_complete():
            with contextlib.suppress(OSError):  # the next run tries again
                self._clear()

    def _clear(self) -> None:
        """Remove the folder and what is ours in it."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                if self._files.fullmatch(name) or name in self._lists or PARTIAL.fullmatch(name):
                    (self.path / name).unlink()
        with contextlib.suppress(OSError):  # not there, or not empty
            self.path.rmdir()
