"""The cache of earlier runs: what is in it, when it was last used, and what may be removed.

The cache of huggingface_hub is not part of it; `hf cache` looks after that one.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import LockedError, ModelFileError, StorageError
from pythia_gguf.files import cache_root
from pythia_gguf.lock import holder, lock
from pythia_gguf.models.kept import MODELS, lock_of, origin_of, origin_path, remove, users
from pythia_gguf.press.manifest import read_manifest

_KERNELS = re.compile("kernels-[0-9a-f]{16}")
# No lock protects compiled kernels, so we leave alone those that were used just now.
_JUST_NOW_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A folder of the cache.

    kind       "model": a file made from a model; "kernels": compiled code of one version
    what       the model, as a user can name it again, if that is known; else the folder's name
    n_bytes    size on the disk, where further names of a file do not count
    last_used  seconds since 1970
    """

    kind: str
    what: str
    path: Path
    n_bytes: int
    last_used: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The entries that `prune` removed, or would remove, and the others.

    removed  removed entries, oldest use first
    spared   entries that should have gone too, each with the reason why it stayed
    kept     the rest
    """

    removed: tuple[CacheEntry, ...]
    spared: tuple[tuple[CacheEntry, str], ...]
    kept: tuple[CacheEntry, ...]


def kept() -> tuple[CacheEntry, ...]:
    """All entries, oldest use first."""
    root = cache_root()
    entries = [_model(path) for path in _folders(root / MODELS)]
    entries += [_entry("kernels", path.name, path) for path in _folders(root) if _KERNELS.fullmatch(path.name)]
    return tuple(sorted(entries, key=lambda entry: (entry.last_used, entry.what)))


def prune(*, older_than_s: float | None = None, most_bytes: int | None = None, dry_run: bool = False) -> PruneResult:
    """Remove entries that nobody has used for long, or those with the oldest use until the rest fits.

    older_than_s  remove entries that were last used more than so many seconds ago
    most_bytes    remove entries until the rest takes no more
    dry_run       remove nothing, only tell
    Raises        ValueError when neither is given, StorageError when the disk refuses

    Entries that another process is making, removing or loading stay.
    """
    if older_than_s is None and most_bytes is None:
        raise ValueError("prune needs older_than_s or most_bytes")
    entries, now = kept(), time.time()
    left = sum(entry.n_bytes for entry in entries)
    removed: list[CacheEntry] = []
    spared: list[tuple[CacheEntry, str]] = []
    rest: list[CacheEntry] = []
    for entry in entries:
        is_old = older_than_s is not None and now - entry.last_used > older_than_s
        if not is_old and (most_bytes is None or left <= most_bytes):
            rest.append(entry)
        elif reason := _remove(entry, now, dry_run):
            spared.append((entry, reason))
        else:
            removed.append(entry)
            left -= entry.n_bytes
    if not dry_run:
        _tidy(cache_root() / MODELS)
    return PruneResult(removed=tuple(removed), spared=tuple(spared), kept=tuple(rest))


def _folders(root: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # nothing is kept, or it is nobody's to look at
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield path


def _model(path: Path) -> CacheEntry:
    origin = origin_of(path)
    what = origin.get("folder")
    if "repo_id" in origin:
        branches = [r for r in origin.get("revisions", ()) if r != "main"]
        is_main = "main" in origin.get("revisions", ()) or not branches
        what = origin["repo_id"] + ("" if is_main else f"@{branches[0]}")
    return _entry("model", f"{what or path.name}:{','.join(_quants(path)) or 'unfinished'}", path)


def _quants(path: Path) -> list[str]:
    try:
        manifest = read_manifest(path)
    except (ModelFileError, StorageError):
        return []
    return [str(entry.get("quant")) for entry in manifest["files"]] if manifest else []


def _entry(kind: str, what: str, path: Path) -> CacheEntry:
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                status = os.lstat(os.path.join(folder, name))
                sizes[status.st_dev, status.st_ino] = status.st_size
    with contextlib.suppress(OSError):
        return CacheEntry(kind=kind, what=what, path=path, n_bytes=sum(sizes.values()), last_used=path.stat().st_mtime)
    return CacheEntry(kind=kind, what=what, path=path, n_bytes=0, last_used=0)


def _remove(entry: CacheEntry, now: float, dry_run: bool) -> str:
    """Remove a folder; returns "" when it is gone, else the reason why not."""
    if entry.kind == "kernels":
        if now - entry.last_used < _JUST_NOW_S:
            return "used within the last hour"
        if not dry_run:
            remove(entry.path)
        return ""
    try:
        with lock(lock_of(entry.path)):
            if by := users(entry.path):
                return f"{by[0]} is loading it"
            if os.path.exists(entry.path) and entry.path.stat().st_mtime > entry.last_used:
                return "used meanwhile"
            if not dry_run:
                remove(entry.path)
                remove(origin_path(entry.path))
    except LockedError:
        return f"{holder(lock_of(entry.path))} is making it"
    return ""


def _tidy(folder: Path) -> None:
    """Remove files that dead processes and deleted folders have left."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.lock")):
            with contextlib.suppress(LockedError), lock(path):
                pass
        for path in sorted(folder.glob("*.json")):
            if not path.with_suffix("").exists():
                path.unlink()
