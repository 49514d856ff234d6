"""Keeps machine code between runs: a folder for each version of the sources, a file for each kernel and kind of CPU.

We do not use Numba's own cache: it does not notice an edit in a function that a kernel calls, its index can be lost
between two processes (numba#10128), a file cut short ends the run, and a folder that cannot be written stops the
import.

    ROOT/kernels-<hash of all sources>/q4_k.encode_q4_k-<hash of argument types, CPU, Python>.code
        byte 0..31  SHA-256 of the rest
        byte 32..   an object file, or a pickle of Numba's

The two hashes name everything that machine code depends on: an edited kernel never meets older code, and two processes
that write a file write the same bytes. So there is no index, and no lock. Neither hash needs Numba, so that kernels
which are kept start without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pythia_gguf.errors import StorageError, one_line
from pythia_gguf.files import cache_root, write_all, write_beside
from pythia_gguf.kernels.target import compiler_version, target_key

# Kernels bake in tables of formats/.
_SOURCES = (Path(__file__).parent, Path(__file__).parent.parent / "formats")
_FOLDER_NAME = re.compile("kernels-[0-9a-f]{16}")
_DIGEST_BYTES = hashlib.sha256().digest_size
_UNUSED_S = 30 * 86400


class CacheWarning(UserWarning):
    """Compiled kernels are kept in another place than usual, or not at all."""


def code_name(kernel: str, types: Sequence[str]) -> str:
    """The name of the file for a kernel, as in "q4_k.encode_q4_k", and the types of its arguments."""
    # The layout of a pickle is Python's affair.
    key = (*types, target_key(), sys.implementation.cache_tag)
    return f"{kernel}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.code"


def fix_version() -> None:
    """Hash the sources now: edits while this process runs must not rename the code of the old sources."""
    _version()


def kept_code(name: str) -> Iterator[bytes]:
    """The code of a name from each folder that has it; a damaged file counts as not there."""
    for folder in _folders():
        code = _read(folder / name)
        if code is not None:
            _mark_used(folder)
            yield code


def keep_code(name: str, code: bytes) -> None:
    """Keep machine code; a CacheWarning says so when that is not possible in the usual place."""
    # The usual folder first, then the private one; if both refuse, the code lives as long as this process.
    refused = ""
    for folder in _folders(make=True):
        try:
            _make(folder)
            _write(folder / name, code)
        except (OSError, StorageError) as e:
            refused = refused or f"{folder}: cannot keep compiled kernels here: {_reason(e)}"
            continue
        if refused:
            _warn(f"{refused}. They are kept in {folder}")
        return
    _warn(f"{refused}. They will be compiled again in the next run; set PYTHIA_GGUF_CACHE to a folder of yours")


def is_kept(name: str) -> bool:
    """Whether there is a file of a name; it is not read."""
    return any(os.path.isfile(folder / name) for folder in _folders())


def stored_code() -> dict[Path, int]:
    """File -> bytes of all machine code kept for these sources, for every CPU and Python."""
    # Not Path.is_dir: it raises where a folder above may not be searched.
    folders = [folder for folder in _folders() if os.path.isdir(folder)]
    return {path: path.stat().st_size for folder in folders for path in sorted(folder.glob("*.code"))}


def _folders(make: bool = False) -> Iterator[Path]:
    """Folders where code of these sources may lie, best first.

    make  create the private folder; others know its name, so it counts only if it is ours and closed to them
    """
    yield cache_root() / _version()
    try:
        private = Path(tempfile.gettempdir()) / f"pythia-gguf-{os.getuid() if hasattr(os, 'getuid') else 'kernels'}"
        if make:
            with contextlib.suppress(FileExistsError):
                private.mkdir(mode=0o700)
        # Not stat: a link of somebody else could lead anywhere. Code from here is run.
        status = private.lstat()
    except OSError:
        return
    ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
    if stat.S_ISDIR(status.st_mode) and ours:
        yield private / _version()


@lru_cache
def _version() -> str:
    """Name of the folder for exactly these sources, compiled by this Numba."""
    hashed = hashlib.sha256(compiler_version())
    for folder in _SOURCES:
        for source in sorted(folder.glob("*.py")):
            hashed.update(source.read_bytes())
    return f"kernels-{hashed.hexdigest()[:16]}"


def _read(path: Path) -> bytes | None:
    """The code kept in a file; None when there is none, or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, kept = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return kept if hashlib.sha256(kept).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    try:
        with write_beside(path) as out:
            write_all(out, hashlib.sha256(code).digest() + code)
    except StorageError:
        # Windows lets nobody replace a file that another process reads; that process has what it needs.
        if _read(path) is None:
            raise


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unused(folder.parent)


def _mark_used(folder: Path) -> None:
    """Set a folder's time to now, its last use; a read-only folder keeps its own time."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def _remove_unused(root: Path) -> None:
    """Delete folders of other versions that nobody used for 30 days; one that is needed after all is made anew."""
    for name in filter(_FOLDER_NAME.fullmatch, os.listdir(root)):
        with contextlib.suppress(OSError):  # another process may be doing the same
            status = (root / name).lstat()
            if stat.S_ISDIR(status.st_mode) and time.time() - status.st_mtime > _UNUSED_S:
                shutil.rmtree(root / name)


def _reason(error: OSError | StorageError) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__
    return one_line(getattr(cause, "strerror", None) or str(cause))


@lru_cache
def _warn(text: str) -> None:
    """Warn once, in one line, without the place in this file, which means nothing to a user."""
    warnings.warn_explicit(text, CacheWarning, filename="pythia-gguf", lineno=1)
