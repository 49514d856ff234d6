"""MODEL, as a user gives it, to a GGUF file: what is missing is fetched, pressed and kept for the next time.

Knows no kernel. Files that are made here lie in the cache, in a folder for each commit or state of a folder, with card
and manifest as everywhere; deleting them costs nothing but the time to make them again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from pythia_gguf.errors import UsageError, nearest, one_line
from pythia_gguf.files import cache_root
from pythia_gguf.hub.client import Hub, UnreachableError
from pythia_gguf.hub.model_name import MAIN, ModelName, parse_model_name
from pythia_gguf.hub.pull import kept_snapshot
from pythia_gguf.plan.quants import QUANTS, select_quants
from pythia_gguf.press.named import name_in
from pythia_gguf.press.quantize import quantize
from pythia_gguf.press.source import UNQUANTIZED
from pythia_gguf.progress import Progress

_QUANT = re.compile(r"(?P<folder>.+):(?P<quant>\w+)")


def find_gguf(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    quant: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """The file to run.

    model     a GGUF; a folder of them or a Hugging Face folder, with :QUANT or without; NAME[@STEP][:QUANT] of the Hub
    revision  branch or commit of a name that has none
    quant     of the menu; without one the only file of a folder, or the unquantized model
    tell      hears in one line of what had to be made
    Raises    UsageError, StorageError, ModelFileError, NetworkError
    """
    text = os.fspath(model)
    folder = _QUANT.fullmatch(text)
    if folder and not os.path.lexists(text) and os.path.isdir(folder["folder"]):
        text, quant = folder["folder"], _only_one("quant", quant, folder["quant"])
    name = name_in(text) if not isinstance(model, os.PathLike) else None
    if name is not None:
        return _of_name(name, revision, quant, threads, progress, tell)
    if revision is not None:
        raise UsageError(f"{one_line(text)}: a revision is for models of the Hub, and this is a path")
    path = Path(text)
    if not path.is_dir():
        if quant is not None:
            raise UsageError(f"{one_line(text)}: a file is of one quant; leave it out")
        return path
    if any(path.glob("*.gguf")):
        return _in_folder(path, quant)
    return _press(path, _home(path.name, _state(path)), quant, threads, progress, tell)


def _only_one(what: str, first: str | None, second: str | None) -> str | None:
    if first is not None and second is not None and first.lower() != second.lower():
        raise UsageError(f"two of them: {what} {first} and {second}")
    return first if first is not None else second


def _in_folder(folder: Path, quant: str | None) -> Path:
    """The file of a published folder."""
    files = {path.stem.rpartition(".")[2].upper(): path for path in sorted(folder.glob("*.gguf"))}
    if quant is None:
        if len(files) == 1:
            return next(iter(files.values()))
        raise UsageError(f"{one_line(str(folder))}: which of them? Say {folder.name}:QUANT, with {', '.join(files)}")
    if quant.upper() not in files:
        raise UsageError(f"{one_line(str(folder))}: no {quant} here{nearest(quant, files)}")
    return files[quant.upper()]


def _of_name(
    name: ModelName,
    revision: str | None,
    quant: str | None,
    threads: int | None,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> Path:
    if revision is not None:
        given = None if name.revision == MAIN else name.revision
        name = parse_model_name(f"{name.repo_id}@{_only_one('revision', given, revision)}")
    quant = _only_one("quant", quant, name.quant)
    if name.notice:
        tell(name.notice)
    step = "" if name.revision == MAIN else f"@{name.revision}"
    home = _home(name.repo_id.split("/")[-1], f"{name.repo_id} {_commit(name)}")
    return _press(f"{name.repo_id}{step}", home, quant, threads, progress, tell)


def _commit(name: ModelName) -> str:
    """The commit that a branch leads to now; without a network, the one that it led to when it was last asked."""
    try:
        return Hub().revision(name.repo_id, name.revision).commit
    except UnreachableError:
        folder = kept_snapshot(name)
        if folder is None:
            raise
        return folder.name


def _state(folder: Path) -> str:
    """Changes when a file of a folder does."""
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir() if p.is_file())
    return f"{folder.resolve()} {files}"


def _home(name: str, state: str) -> Path:
    """Where what is made of a model is kept."""
    return cache_root() / "models" / f"{name}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"


def _press(
    source: str | Path,
    home: Path,
    quant: str | None,
    threads: int | None,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> Path:
    """The file of a quant, made unless it is there; None: unquantized."""
    is_plain = quant is None or quant.upper() in UNQUANTIZED
    chosen = [] if is_plain else [q.name for q in select_quants(quant or "", "quant")]
    there = [p for p in home.glob("*.gguf") if p.stem.rpartition(".")[2] in (chosen or UNQUANTIZED)]
    if not there:
        result = quantize(source, home, quants=chosen, keep_f16=is_plain, threads=threads, progress=progress)
        there = [f.path for f in result.files if f.quant in chosen or (is_plain and f.quant not in QUANTS)]
        tell(f"pressed {source} to {there[0].stem.rpartition('.')[2]}, kept in {there[0].parent}")
    if is_plain and quant is not None and not there[0].stem.upper().endswith(f".{quant.upper()}"):
        raise UsageError(f"{source} is stored as {there[0].stem.rpartition('.')[2]}, not as {quant.upper()}")
    return there[0]
