"""Files that grow over hours in a hidden folder, and a state that says how far they are whole: a killed run goes on.

.NAME.unfinished/state.json   the plan of the run, the size of each file, where the run is in its work; a hash of these
.NAME.unfinished/tokens ...   the files; bytes behind those that the state knows of are cut off
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import fsync_folder, storage_error, write_all, write_text
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.lock import lock

_SHAPE = {"sha256": str, "plan": dict, "sizes": {"*": int}, "position": dict}


class GrowingFiles:
    """The files of one run, for use in a `with`; it is alone in the folder.

    position  what the caller saved last; empty when nothing is there yet
    """

    def __init__(self, prefix: Path, names: tuple[str, ...], plan: Mapping[str, Any]) -> None:
        """Take what will be made.

        prefix  of the results
        names   of the files
        plan    what the results depend on, as JSON; the work of a run with another plan is thrown away
        """
        self._prefix, self._names, self._plan = prefix, names, dict(plan)
        self.folder = prefix.with_name(f".{prefix.name}.unfinished")
        self.position: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Go on where the last run saved; raises LockedError, StorageError."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock(self._prefix.with_name(f".{self._prefix.name}.lock")))
            try:
                self.folder.mkdir(exist_ok=True)
                sizes = self._saved_sizes()
                self._files: dict[str, BinaryIO] = {}
                for name in self._names:
                    file = open(self.folder / name, "ab", buffering=0)
                    self._files[name] = stack.enter_context(file)
                    file.truncate(sizes.get(name, 0))
            except OSError as e:
                raise storage_error(self.folder, e) from e
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        with contextlib.suppress(OSError):
            if not any((self.folder / name).stat().st_size for name in self._names if (self.folder / name).exists()):
                self.remove()

    def append(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Write behind what a file holds."""
        try:
            write_all(self._files[name], data)
        except OSError as e:
            raise storage_error(self.folder / name, e) from e

    def save(self, position: Mapping[str, Any]) -> None:
        """Note that everything up to `position` is in the files; a killed run goes on from here."""
        try:
            sizes = {}
            for name, file in self._files.items():
                os.fsync(file.fileno())
                sizes[name] = os.fstat(file.fileno()).st_size
        except OSError as e:
            raise storage_error(self.folder, e) from e
        self.position = dict(position)
        state = {"plan": self._plan, "sizes": sizes, "position": self.position}
        write_text(self._state, json_text({"sha256": _hash(state)} | state))

    def move(self, name: str, place: Path) -> None:
        """Give a file that is complete its final name."""
        try:
            if os.name == "nt":  # renames no open file
                self._files[name].close()
            os.replace(self.folder / name, place)
            fsync_folder(place.parent)
        except OSError as e:
            raise storage_error(place, e) from e

    def remove(self) -> None:
        """Take away the hidden folder, when its results are in place."""
        for name in (*self._names, self._state.name):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @property
    def _state(self) -> Path:
        return self.folder / "state.json"

    def _saved_sizes(self) -> dict[str, int]:
        """Sizes of the files when they were saved last; empty where they are shorter now, or of another plan."""
        if not self._state.exists():
            return {}
        try:
            state = read_json_object(self._state, _SHAPE)
        except ModelFileError:  # damaged, as below: the work is done again
            return {}
        if state.pop("sha256") != _hash(state):
            return {}
        sizes = {name: (self.folder / name).stat().st_size for name in state["sizes"] if (self.folder / name).exists()}
        if state["plan"] != self._plan or any(sizes.get(name, -1) < size for name, size in state["sizes"].items()):
            return {}
        self.position = state["position"]
        return dict(state["sizes"])


def _hash(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(state).encode()).hexdigest()
