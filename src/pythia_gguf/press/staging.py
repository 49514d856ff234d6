"""The hidden folder in which the files of a run lie until every one of them is complete.

Knows nothing of models. The manifest is written last and says that all are there; only then do they move to their
places. A run that dies before leaves the output folder as it was; one that dies while files move is finished by the
next. So a final name always holds a whole file, and the card, the sums and the manifest tell of files as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pythia_gguf.errors import Argument, StorageError
from pythia_gguf.files import (
    CHUNK_BYTES,
    fsync_folder,
    read_whole,
    remove_abandoned,
    storage_error,
    write_all,
    write_beside,
    write_text,
)
from pythia_gguf.press.manifest import MANIFEST, SUMS

CARD = "README.md"
STAGING = ".pythia-press"
# What a run can have left there; anything else is somebody else's, and stays.
_OURS = re.compile(r"[^.].*\.gguf|README\.md|SHA256SUMS|\..+\.[0-9]+\.[0-9a-f]{8}\.partial")


class Staging:
    """Where a run writes its files; for a folder that is locked.

    folder  where they will be
    path    where they are written, under the same names
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / STAGING

    def __enter__(self) -> Self:
        """Finish or clear away what killed runs have left; raises StorageError when the disk refuses."""
        remove_abandoned(self.folder)
        if self._is_complete():
            self._drop_older()
            self._move()
        try:
            self._clear()
            self.path.mkdir(exist_ok=True)
        except OSError as e:
            raise storage_error(self.path, e) from e
        except BaseException:  # interrupted right after the folder was made
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Clear away what is not complete."""
        if not self._is_complete():
            with contextlib.suppress(OSError):  # the next run tries again
                self._clear()

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

    def write(self, name: str, text: str) -> None:
        """A text file, unless the same one is in its place."""
        if not self._is_in_place(name, text):
            write_text(self.path / name, text)

    def publish(self, manifest: str) -> None:
        """Give all files their places; from here on they will get there, by this run or the next.

        Nothing is done where nothing is new. Raises StorageError when the disk refuses.
        """
        if os.listdir(self.path) or not self._is_in_place(MANIFEST, manifest):
            write_text(self.path / MANIFEST, manifest)
            self._move()

    def _is_in_place(self, name: str, text: str) -> bool:
        place = self.folder / name
        return place.is_file() and read_whole(place) == text.encode()

    def _is_complete(self) -> bool:
        return (self.path / MANIFEST).exists()

    def _drop_older(self) -> None:
        """Forget files in whose place somebody has put another after the run was killed."""
        killed = (self.path / MANIFEST).stat().st_mtime_ns
        for name in os.listdir(self.path):
            place = self.folder / name
            if name != MANIFEST and place.exists() and place.stat().st_mtime_ns > killed:
                (self.path / name).unlink()

    def _move(self) -> None:
        try:
            names = sorted(n for n in os.listdir(self.path) if _OURS.fullmatch(n) and not n.startswith("."))
            # They tell of files that are replaced now; new ones follow the files.
            for name in (MANIFEST, SUMS, CARD):
                if (self.path / name).exists():
                    (self.folder / name).unlink(missing_ok=True)
            fsync_folder(self.folder)
            for name in sorted(names, key=lambda name: not name.endswith(".gguf")):
                os.replace(self.path / name, self.folder / name)
            fsync_folder(self.folder)
            os.replace(self.path / MANIFEST, self.folder / MANIFEST)
            fsync_folder(self.folder)
        except OSError as e:
            raise storage_error(self.folder, e) from e

    def _clear(self) -> None:
        """Remove the folder and what is ours in it."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path):
                if _OURS.fullmatch(name):
                    (self.path / name).unlink()
        with contextlib.suppress(OSError):  # not there, or not empty
            self.path.rmdir()


def check_places(folder: Path, names: Iterable[str], n_bytes: int) -> None:
    """Raises StorageError when a folder has the name of a file, or `n_bytes` of files do not fit.

    1 % is added for what the file system needs for itself.
    """
    for name in (*names, MANIFEST, SUMS, CARD):
        if (folder / name).is_dir():
            raise StorageError(f"{folder / name}: is a folder. Move it away", (", or choose another ", Argument("out")))
    needed = n_bytes + n_bytes // 100
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{folder}: the files need {needed:,} bytes, {free:,} are free. Free some space",
            (", or choose another ", Argument("out")),
        )
