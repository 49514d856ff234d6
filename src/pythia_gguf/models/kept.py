"""Keeps files that were made from models for the next time; one process makes a file, and others wait for it.

The cache's folder "models" holds:

    NAME-<hash>-QUANT/             one file, with card and manifest
    NAME-<hash>/                   several files, as version 0.1.0 kept them at first
    NAME-<hash>-QUANT.json         its source; not inside, because it may name folders of this machine
    NAME-<hash>-QUANT.lock         exists while a process makes or removes the file
    NAME-<hash>-QUANT.use-*.lock   exists while a process loads the file
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pythia_gguf.errors import LockedError, ModelFileError, StorageError
from pythia_gguf.files import cache_root, storage_error, write_text
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.lock import holder, lock
from pythia_gguf.plan.quants import canonical
from pythia_gguf.press.file_names import legal_name
from pythia_gguf.press.manifest import read_manifest
from pythia_gguf.press.source import UNQUANTIZED

MODELS = "models"
PLAIN = "unquantized"
_COMMIT = re.compile("[0-9a-f]{40}")
_ORIGIN_SHAPE = {"repo_id?": str, "commit?": str, "revisions?": [str], "folder?": str}
_MOST_LETTERS = 100


def home_of(root: Path, name: str, state: str) -> Path:
    """The beginning of the paths of folders that hold files of one state of a model.

    root   folder of the cache
    name   a name for people
    state  a text that holds everything that decides the content of the files
    """
    digest = hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return root / MODELS / f"{legal_name(name)[:_MOST_LETTERS]}-{digest}"


def entry_of(home: Path, quant: str) -> Path:
    """The folder that holds one file."""
    return home.with_name(f"{home.name}-{quant}")


def sound_file(home: Path, quant: str) -> Path | None:
    """The file of a quant, or of PLAIN, whichever version made it; None where there is no whole one."""
    for folder in (entry_of(home, quant), home):
        if (found := sound_file_in(folder, quant)) is not None:
            return found
    return None


def sound_file_in(folder: Path, quant: str) -> Path | None:
    """The same in one folder: a file that the manifest lists, in its full size, with a readable header."""
    try:
        manifest = read_manifest(folder)
    except (ModelFileError, StorageError, OSError):
        return None
    for entry in manifest["files"] if manifest else ():
        path = folder / entry["file"]
        with contextlib.suppress(ModelFileError, StorageError, OSError):
            made = canonical(entry.get("quant", ""))
            is_wanted = made == quant or (quant == PLAIN and made in UNQUANTIZED)
            if is_wanted and open_gguf(path).n_bytes == entry["bytes"]:
                return path
    return None


def keep(home: Path, quant: str, make: Callable[[Path], object], wait: Callable[[str], None]) -> Path:
    """The file of a quant, or of PLAIN; a missing or damaged one is made first.

    make    writes the file into a folder
    wait    hears which process is making it, as "process 123", before we wait for that one
    Raises  as `make`, and StorageError
    """
    found = sound_file(home, quant)
    if found is None:
        entry = entry_of(home, quant)
        _check_place(entry.parent)
        with lock(lock_of(entry), wait=wait):
            found = sound_file(home, quant)
            if found is None:
                remove(entry)
                make(entry)
                found = sound_file(home, quant)
                assert found is not None
    with contextlib.suppress(OSError):  # a cache that is read-only serves as it is
        os.utime(found.parent)
    return found


def lock_of(entry: Path) -> Path:
    """The lock that a process holds while it makes or removes a folder."""
    return entry.with_name(f"{entry.name}.lock")


def remove(entry: Path) -> None:
    """Remove everything under the name of an entry; raises StorageError."""
    try:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    except OSError as e:
        raise storage_error(entry, e) from e


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[bool]:
    """Protect a file from pruning while the block runs; yields whether it still exists. Other files need no lock."""
    entry = path.parent
    if entry.parent != cache_root() / MODELS:
        yield True
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StorageError), lock(lock_of(entry), wait=lambda owner: None):
            if path.exists():
                stack.enter_context(lock(entry.with_name(f"{entry.name}.use-{secrets.token_hex(8)}.lock")))
        yield path.exists()


def users(entry: Path) -> tuple[str, ...]:
    """Processes that load from a folder, as "process 123"; locks that dead processes have left are removed."""
    found = []
    for mark in sorted(entry.parent.glob(f"{entry.name}.use-*.lock")):
        try:
            with lock(mark):
                pass
        except LockedError:
            found.append(holder(mark))
    return tuple(found)


def note_origin(entry: Path, origin: Mapping[str, Any]) -> None:
    """Note the source of a folder; revisions are added to those that were noted before."""
    before = origin_of(entry)
    revisions = sorted({*before.get("revisions", []), *origin.get("revisions", [])})
    after = before | dict(origin) | ({"revisions": revisions} if revisions else {})
    if after != before:
        with contextlib.suppress(StorageError):  # a cache that is read-only serves as it is
            write_text(origin_path(entry), json_text(after, indent=1) + "\n")


def origin_of(entry: Path) -> dict[str, Any]:
    """The source of a folder: "repo_id", "commit" and "revisions", or "folder"; empty where it is not known."""
    try:
        return read_json_object(origin_path(entry), _ORIGIN_SHAPE)
    except (ModelFileError, StorageError):
        return {}


def origin_path(entry: Path) -> Path:
    """The file that notes the source of a folder."""
    return entry.with_name(f"{entry.name}.json")


def commits_of(root: Path, repo_id: str, revision: str) -> list[str]:
    """Commits to which a branch led when its files were made, the last one first.

    root  folder of the cache
    """
    found = []
    for path in (root / MODELS).glob("*.json"):
        origin = origin_of(path.with_suffix(""))
        is_of_branch = origin.get("repo_id") == repo_id and revision in origin.get("revisions", ())
        if is_of_branch and _COMMIT.fullmatch(origin.get("commit", "")):
            with contextlib.suppress(OSError):  # gone meanwhile
                found.append((path.stat().st_mtime, origin["commit"]))
    return [commit for _, commit in sorted(found, reverse=True)]


def _check_place(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"{storage_error(folder, e)}. PYTHIA_GGUF_CACHE may name another") from e
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{folder}: cannot write. PYTHIA_GGUF_CACHE may name another place for files that are made")
