"""Turns MODEL, as a user gives it, into a GGUF file: a missing one is fetched, pressed and kept for the next time.

Everything that decides the bytes of a file is in the key under which it is kept: for a name the commit, for a folder
its place, and size and time of each file that matters. Deleting a kept file costs the time to make it again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pythia_gguf.errors import Argument, StorageError, UsageError, one_line
from pythia_gguf.files import cache_root
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.hub.client import Hub, UnreachableError
from pythia_gguf.hub.model_name import ModelName
from pythia_gguf.hub.pull import kept_snapshot, note_branch
from pythia_gguf.hub.run_folder import RunStep
from pythia_gguf.models.kept import PLAIN, commits_of, home_of, in_use, keep, note_origin, sound_file, sound_file_in
from pythia_gguf.plan.quants import QUANTS, canonical, select_quants
from pythia_gguf.plan.recognize import quants_of
from pythia_gguf.press.file_names import legal_name, name_of
from pythia_gguf.press.find_source import LocalModel, only_one, resolve
from pythia_gguf.press.gguf_folder import file_in, files_in, no_such_quant
from pythia_gguf.press.gguf_repository import kept_gguf, repository_gguf
from pythia_gguf.press.quantize import quantize
from pythia_gguf.press.source import UNQUANTIZED, open_source
from pythia_gguf.progress import Progress

_COMMIT = re.compile("[0-9a-f]{40}")


def find_gguf(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    quant: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Find the GGUF file to run, and make it if it is missing.

    model     a GGUF; a folder of them or a Hugging Face folder, with :QUANT or without; RUN@STEP[:QUANT] for a folder
              RUN that holds such folders, called stepN; NAME[@STEP][:QUANT] of the Hub, a checkpoint or a repository of
              GGUF files
    revision  step of a run; branch or commit, for a name without one
    quant     a quant of the menu; None: the only file of a folder or repository, or the unquantized model
    tell      hears in one line which file had to be made
    Raises    UsageError, StorageError, ModelFileError, NetworkError
    """
    # 1. A text that names nothing on this machine is a name of the Hub.
    named = resolve(model, revision)
    if isinstance(named, ModelName):
        quant = only_one("quant", quant, named.file or named.quant)
        named = replace(named, quant=None if named.file else quant)
        return _Maker(named.quant, threads, progress, tell).of_name(named)
    # 2. A file is the answer itself.
    path, quant = named.path, only_one("quant", quant, named.quant)
    if not path.is_dir():
        if quant is not None:
            raise UsageError(Argument("quant"), f": {one_line(str(path))}: a file is of one quant; leave it out")
        return path
    # 3. A folder may hold the file already. If it holds only other GGUF files, no checkpoint is there to press.
    found = file_in(path, quant)
    if found is not None:
        return found
    if not (path / "config.json").is_file() and any(files_in(path)):
        raise no_such_quant(path, quant)
    # 4. A checkpoint: press it, or take the file that an earlier run has kept.
    return _Maker(quant, threads, progress, tell).of_folder(path, named.step)


@contextlib.contextmanager
def found_gguf(model: str | os.PathLike[str], **options: Any) -> Iterator[Path]:
    """The same file; it stays while the block runs, even if another process prunes the cache."""
    while True:
        path = find_gguf(model, **options)
        with in_use(path) as is_there:
            if is_there:
                yield path
                return


@contextlib.contextmanager
def found_path(place: str | os.PathLike[str], **options: Any) -> Iterator[Path]:
    """A file or folder of this machine, as it is; otherwise the file that `found_gguf` gives.

    The second case is a name, FOLDER:QUANT, or a step of a run that is a checkpoint.
    """
    named = resolve(place)
    if isinstance(named, LocalModel) and named.quant is None and (named.step is None or any(files_in(named.path))):
        yield named.path
        return
    with found_gguf(place, **options) as path:
        yield path


class _Maker:
    """Gives one quant of any model: the file that an earlier run has kept, or a new one."""

    def __init__(
        self, quant: str | None, threads: int | None, progress: Progress | None, tell: Callable[[str], None]
    ) -> None:
        self.quant, self.threads, self.progress, self.tell = quant, threads, progress, tell
        self.is_plain = quant is None or quant.upper() in UNQUANTIZED

    @cached_property
    def wanted(self) -> str:
        """The quant by its own name, or PLAIN; raises UsageError for a quant that cannot be made."""
        if self.is_plain:
            return PLAIN
        chosen = select_quants(self.quant or "", "quant")
        if len(chosen) > 1:
            raise UsageError(f"{self.quant}: a model to run has one quant")
        return canonical(chosen[0].name)

    def of_folder(self, folder: Path, step: RunStep | None = None) -> Path:
        """The file of a Hugging Face folder; raises as `open_source` for any other folder.

        step  the step, where the user has named the folder as a step of a run
        """
        name = name_of(folder) if step is None else step.base_name
        source = open_source(folder, legal_name(name))
        stats = sorted((os.path.relpath(p, folder), p.stat()) for p in source.files)
        state = f"{folder.resolve()} {[(path, s.st_size, s.st_mtime_ns) for path, s in stats]}"
        if step is not None:  # the name is in the file, and the same folder may be given by its place
            home = home_of(cache_root(), name, f"{name} {state}")
            origin = {"folder": f"{step.run.resolve()}@{step.branch}"}
            return self._keep(folder, f"{step.run}@{step.branch}", legal_name(name), home, origin)
        home = home_of(cache_root(), name, state)
        before = _first_home(folder)
        if sound_file_in(before, self.wanted) is not None:
            home = before
        return self._keep(folder, str(folder), None, home, {"folder": str(folder.resolve())})

    def of_name(self, name: ModelName) -> Path:
        """The file of a model of the Hub; a file that is here already needs no network."""
        if name.notice:
            self.tell(name.notice)
        # 1. A checkpoint: refuse a quant that cannot be made before we ask the network anything.
        if name.model is not None and name.file is None:
            _ = self.wanted
        # 2. Ask the Hub for the commit, unless the name is one, and look for a GGUF in the repository.
        try:
            commit = name.revision if _COMMIT.fullmatch(name.revision) else Hub().commit_of(name.repo_id, name.revision)
            path = self._of_repository(name, commit)
        except UnreachableError as e:
            return self._without_network(name, e)
        # 3. Without a GGUF it is a checkpoint: press it, or take the file that an earlier run has kept.
        if path is None:
            path = self._of_commit(name, commit)
        note_branch(name, commit)
        return path

    def _of_repository(self, name: ModelName, commit: str) -> Path | None:
        """Fetch the GGUF that a name means; None where it means a checkpoint, or its file was made before."""
        if name.file is None and (name.model is not None or self._made(name, commit)):
            return None
        snapshot = kept_snapshot(name) if commit == name.revision else None
        with contextlib.suppress(UnreachableError):  # what a commit holds does not change
            if snapshot is not None and (name.file or name.quant) and (path := kept_gguf(name, snapshot)):
                return path
        hub = Hub()
        return repository_gguf(name, hub.commit(name.repo_id, commit), hub, self.progress)

    def _made(self, name: ModelName, commit: str) -> Path | None:
        """The file that an earlier run made from a checkpoint."""
        is_of_menu = self.is_plain or str(self.quant).upper() in QUANTS
        return sound_file(_home_of_name(name, commit), self.wanted) if is_of_menu else None

    def _of_commit(self, name: ModelName, commit: str) -> Path:
        display = str(replace(name, quant=None))
        origin = {"repo_id": name.repo_id, "commit": commit, "revisions": [name.revision]}
        # Press the commit that is in the key, even if the branch moves meanwhile.
        return self._keep(
            f"{name.repo_id}@{commit}", display, legal_name(name.base_name), _home_of_name(name, commit), origin
        )

    def _without_network(self, name: ModelName, unreachable: UnreachableError) -> Path:
        """The file that was made when the Hub could be reached, or one made from the files that were fetched then."""
        snapshot = kept_snapshot(name)
        commits = [snapshot.name] if snapshot else []
        commits += commits_of(cache_root(), name.repo_id, name.revision)
        if not commits:
            raise unreachable
        there = [commit for commit in commits if name.file is None and self._made(name, commit)]
        path = kept_gguf(name, snapshot) if snapshot is not None and not there else None
        if path is None and name.file is not None:
            raise unreachable
        commit = snapshot.name if snapshot is not None and path is not None else (there or commits)[0]
        what = replace(name, quant=None, file=None) if path is None else f"{name.repo_id}: {path.name}"
        self.tell(f"the Hub cannot be reached: {what} is taken as it was at commit {commit[:7]}")
        return path or self._of_commit(name, commit)

    def _keep(
        self, source: str | Path, display: str, own_name: str | None, home: Path, origin: Mapping[str, Any]
    ) -> Path:
        made: list[Path] = []

        def make(entry: Path) -> None:
            quants = [] if self.is_plain else [self.wanted]
            options: dict[str, Any] = {"threads": self.threads, "progress": self.progress, "name": own_name}
            quantize(source, entry, quants=quants, keep_f16=self.is_plain, **options)
            made.append(entry)

        def wait(owner: str) -> None:
            self.tell(f"{owner} is making {display} {self.wanted}: waiting for it")

        try:
            path = keep(home, self.wanted, make, wait)
        except StorageError as e:  # it may name an option for the place, which our caller does not have
            raise StorageError(e.said(lambda argument: None)) from e
        note_origin(path.parent, origin)
        quant = self.wanted
        if self.is_plain:
            gguf = open_gguf(path)
            quant, _ = quants_of(gguf.metadata, gguf.formats)
        if made:
            self.tell(f"pressed {display} to {quant}, kept in {path.parent}")
        if self.is_plain and self.quant is not None and quant != self.quant.upper():
            raise UsageError(f"{display} is stored as {quant}, not as {self.quant.upper()}")
        return path


def _home_of_name(name: ModelName, commit: str) -> Path:
    return home_of(cache_root(), name.repo_id.split("/")[-1], f"{name.repo_id} {commit}")


def _first_home(folder: Path) -> Path:
    """The place where version 0.1.0 at first kept files made from a folder: the key held every file of the folder."""
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return home_of(cache_root(), folder.name, f"{folder.resolve()} {files}")
