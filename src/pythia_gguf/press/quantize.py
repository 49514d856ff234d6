"""The main job: one checkpoint in, a folder of GGUF files with card, checksums and manifest out.

Knows no kernel and no format; ties together source, menu, pass and card.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata as installed
from pathlib import Path
from typing import Protocol

from pythia_gguf.card.card import CardFile, CardRun, CardSource, write_card
from pythia_gguf.checkpoint.checkpoint import iter_file_checked
from pythia_gguf.errors import StorageError, UsageError
from pythia_gguf.files import fsync_folder, storage_error, write_beside, write_text
from pythia_gguf.plan.quants import find_mix, select_quants
from pythia_gguf.press.manifest import MANIFEST, SUMS, SourceFile, write_manifest
from pythia_gguf.press.menu import MIX_NOTE, MenuItem, make_menu, plain_item
from pythia_gguf.press.names import check_name, name_of
from pythia_gguf.press.source import Source, open_source

CARD = "README.md"


class Progress(Protocol):
    """Hears what a run is doing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A new stage begins: its name, how much there is to do, and of what."""

    def advance(self, what: str, n: int) -> None:
        """`n` more units are done; `what` was worked on."""


class Silence:
    """Progress that nobody hears."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Says nothing."""

    def advance(self, what: str, n: int) -> None:
        """Says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PressFile:
    """One file of the menu.

    quant     name in the menu
    path      where it is, or would be
    n_bytes   exact size
    bits_per_weight  storage of one weight, over all tensors, without the header
    sha256    of its bytes; None in a forecast
    alias_of  the quant of this run whose bytes it shares, or None
    plan      tensor name -> (format, reason)
    """

    quant: str
    path: Path
    n_bytes: int
    bits_per_weight: float
    sha256: str | None
    alias_of: str | None
    plan: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PressResult:
    """What a run made, or with `dry_run` would make.

    name       NAME of the files
    folder     where they are
    mix        edition of the quants
    n_weights  parameters of the model
    files      in the order of the menu
    notes      what the reader should know, one line each
    seconds    wall time of the run
    """

    name: str
    folder: Path
    mix: str
    n_weights: int
    files: tuple[PressFile, ...]
    notes: tuple[str, ...]
    seconds: float


def quantize(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    quants: str | Iterable[str] = "all",
    mix: str = "2026",
    threads: int | None = None,
    name: str | None = None,
    quantized_by: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    keep_f16: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> PressResult:
    """Quantize a checkpoint to GGUF files that are, byte for byte, llama.cpp's.

    source        Hugging Face folder of a GPT-NeoX model, or an F16, BF16 or F32 GGUF of one
    out           folder to write; default NAME-GGUF beside the working directory
    quants        "all", or names of the menu, as a list or separated by commas
    mix           "2026" (llama.cpp 0c1e57098) or "2024" (the rules of older published files)
    threads       worker threads; default one per CPU; the result does not depend on it
    name          NAME of the files; default the source's own
    quantized_by  who goes into the card
    dry_run       plan and sizes only: no weight is read, nothing is written
    force         replace files that exist
    keep_f16      also leave the unquantized file
    command       command line for the card; default this call
    progress      hears what is going on
    Raises        UsageError, ModelFileError, StorageError; finished files are never left half written
    """
    started = time.perf_counter()
    progress = progress or Silence()
    path = Path(source)
    chosen = select_quants(quants if isinstance(quants, str) else ",".join(quants))
    find_mix(mix)
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}")
    opened = open_source(path, check_name(name if name is not None else name_of(path)))
    menu = make_menu(opened, chosen, mix)
    folder = Path(out) if out is not None else Path(f"{opened.name}-GGUF")
    plain = plain_item(opened) if keep_f16 else None
    items = (*menu, plain) if plain else menu
    if dry_run:
        return _result(opened, folder, mix, items, {}, started)
    _make_room(folder, items, force)
    n_threads = threads or _cpus()
    run = CardRun(
        tool_version=installed.version("pythia-gguf"),
        command=command or _call(opened, quants, mix),
        mix=mix,
        quantized_by=quantized_by,
    )
    sources = _hash_sources(opened, progress)
    tensors, sums = _write_files(opened, folder, menu, plain, n_threads, progress)
    write_manifest(
        folder,
        tool_version=run.tool_version,
        name=opened.name,
        mix=mix,
        kind=opened.kind,
        sources=sources,
        items=items,
        sha256=sums,
        tensors=tensors,
    )
    write_text(folder / CARD, _card(opened, items, sums, sources, run))
    return _result(opened, folder, mix, items, sums, started)


def _write_files(
    source: Source,
    folder: Path,
    menu: Sequence[MenuItem],
    plain: MenuItem | None,
    threads: int,
    progress: Progress,
) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Make all GGUF files; an alias becomes a link to its original.

    Returns the hash of each (tensor name, format), and of each file by its name.
    """
    # Loaded here: a dry run needs neither kernels nor the library that compiles them.
    from pythia_gguf.kernels.encode import ENCODABLE, compile_encoder
    from pythia_gguf.press.pressing import press

    originals = {item.quant: item for item in menu if item.alias_of is None}
    formats = {e.format for item in originals.values() for e in item.entries}
    needed = [name for name in ENCODABLE if name in formats]
    progress.stage("compiling", len(needed), "kernels")
    for name in needed:
        compile_encoder(name)
        progress.advance(name, 1)
    progress.stage("encoding", source.n_weights, "weights")
    outputs = [item.output(folder) for item in originals.values()]
    order = [tensor.name for tensor in source.tensors]
    pressed = press(source, outputs, order=order, threads=threads, advance=progress.advance)
    tensors = dict(pressed.tensors)
    sums = {path.name: digest for path, (_, digest) in pressed.files.items()}
    if plain:
        progress.stage("writing the unquantized file", source.n_weights, "weights")
        outputs = [plain.output(folder)]
        kept = press(source, outputs, order=source.file_order, threads=threads, advance=progress.advance)
        tensors |= kept.tensors
        sums |= {path.name: digest for path, (_, digest) in kept.files.items()}
    for item in menu:
        if item.alias_of is not None:
            original = originals[item.alias_of]
            _link(folder / original.file, folder / item.file)
            sums[item.file] = sums[original.file]
    return tensors, sums


def _link(original: Path, alias: Path) -> None:
    """A second name for the same bytes; a copy where the file system has no hard links."""
    beside = alias.with_name(f".{alias.name}.{os.getpid()}.partial")
    try:
        os.link(original, beside)
    except OSError:
        with write_beside(alias) as out, open(original, "rb") as data:
            shutil.copyfileobj(data, out, 4 << 20)
        return
    try:
        os.replace(beside, alias)
        fsync_folder(alias.parent)
    except OSError as e:
        raise storage_error(alias, e) from e
    finally:
        beside.unlink(missing_ok=True)  # replacing a name by a link to the same file leaves both


def _make_room(folder: Path, items: Sequence[MenuItem], force: bool) -> None:
    """The folder exists and none of the files does, unless they may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder}: is a file. Choose another --out")
    taken = [name for name in (*(i.file for i in items), MANIFEST, SUMS, CARD) if (folder / name).exists()]
    if taken and not force:
        raise UsageError(
            f"{folder / taken[0]} exists{_and_more(len(taken) - 1)}. Use --force to replace, or another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(folder, e) from e


def _and_more(n: int) -> str:
    return f", and {n} more files" if n > 0 else ""


def _hash_sources(source: Source, progress: Progress) -> tuple[SourceFile, ...]:
    with_sizes = [(path, path.stat().st_size) for path in source.files]
    progress.stage("hashing the source", sum(n for _, n in with_sizes), "bytes")
    found = []
    for path, n_bytes in with_sizes:
        digest = hashlib.sha256()
        for chunk in iter_file_checked(path):
            digest.update(chunk)
            progress.advance(path.name, len(chunk))
        found.append(SourceFile(name=path.name, n_bytes=n_bytes, sha256=digest.hexdigest()))
    return tuple(found)


def _card(
    source: Source, items: Sequence[MenuItem], sums: dict[str, str], sources: Sequence[SourceFile], run: CardRun
) -> str:
    files = [
        CardFile(
            name=i.file,
            quant=i.quant,
            n_bytes=i.n_bytes,
            bits_per_weight=i.bits_per_weight,
            sha256=sums[i.file],
            alias_of=i.alias_of,
        )
        for i in items
    ]
    origin = CardSource(
        name=source.name,
        repo_id=source.repo_id,
        revision=None,
        commit=source.commit,
        files=tuple((f.name, f.n_bytes, f.sha256) for f in sources),
        readme=source.readme,
    )
    return write_card(files, origin, run)


def _result(
    source: Source, folder: Path, mix: str, items: Sequence[MenuItem], sums: dict[str, str], started: float
) -> PressResult:
    files = tuple(
        PressFile(
            quant=i.quant,
            path=folder / i.file,
            n_bytes=i.n_bytes,
            bits_per_weight=i.bits_per_weight,
            sha256=sums.get(i.file),
            alias_of=i.alias_of,
            plan={e.tensor: (e.format, e.reason) for e in i.entries},
        )
        for i in items
    )
    return PressResult(
        name=source.name,
        folder=folder,
        mix=mix,
        n_weights=source.n_weights,
        files=files,
        notes=_notes(items, mix),
        seconds=time.perf_counter() - started,
    )


def _notes(items: Sequence[MenuItem], mix: str) -> tuple[str, ...]:
    notes = []
    if mix == "2026" and any(i.quant in ("Q2_K", "Q3_K_L") for i in items):
        notes.append(MIX_NOTE)
    fallen = {e.tensor: e.reason for i in items for e in i.entries if e.reason.startswith("row of")}
    if fallen:
        notes.append(
            f"{len(fallen)} tensors have rows that are not whole blocks and get a format with smaller blocks, as in"
            f" llama.cpp; e.g. {next(iter(fallen))}: {next(iter(fallen.values()))}"
        )
    return tuple(notes)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _call(source: Source, quants: str | Iterable[str], mix: str) -> str:
    names = quants if isinstance(quants, str) else ",".join(quants)
    return f"pythia quantize {source.name} --quants {names} --mix {mix}"
