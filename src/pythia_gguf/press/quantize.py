"""The main job: one checkpoint in, a folder of GGUF files with card, checksums and manifest out.

Knows no kernel and no format; ties together source, menu, pass and card.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata as installed
from pathlib import Path
from typing import Any

from pythia_gguf.arguments import checked, texts
from pythia_gguf.card.card import CardRun
from pythia_gguf.card.line_ends import in_unix_lines
from pythia_gguf.card.measured import keep_measured, without_files
from pythia_gguf.checkpoint.checkpoint import iter_file_checked
from pythia_gguf.cpus import threads_of
from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import check_folder_place, sha256_of, storage_error
from pythia_gguf.plan.quants import QUANTS, Quant, find_mix, select_quants
from pythia_gguf.press.account import card_files, card_text, command_text, imatrix_text, notes_of, other_model_note
from pythia_gguf.press.compiling import Compiling
from pythia_gguf.press.file_names import check_name, file_name, legal_name
from pythia_gguf.press.find_source import find_source
from pythia_gguf.press.finished import Finished, find_finished, refuse_unknown
from pythia_gguf.press.folder_card import card_digest, card_with
from pythia_gguf.press.lock import lock_folder
from pythia_gguf.press.manifest import SUMS, SourceFile, manifest_text, source_entry, sums_text
from pythia_gguf.press.menu import MenuItem, make_menu, plain_format, plain_item
from pythia_gguf.press.source import UNQUANTIZED, Source, open_source, with_imatrix
from pythia_gguf.press.staging import CARD, Staging, check_places
from pythia_gguf.progress import Progress, Silence

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PressFile:
    """One file of the menu.

    quant     name in the menu
    path      where it is, or would be
    n_bytes   exact size
    bits_per_weight  storage of one weight, over all tensors, without the header
    sha256    of its bytes; None in a forecast
    alias_of  the quant of this run whose bytes it shares, or None
    kept      whether an earlier run made it; its bytes were compared with the manifest of that run
    plan      tensor name -> (format, reason)
    """

    quant: str
    path: Path
    n_bytes: int
    bits_per_weight: float
    sha256: str | None
    alias_of: str | None
    kept: bool
    plan: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PressResult:
    """What a run made and kept, or with `dry_run` would make.

    name       NAME of the files
    folder     where they are
    mix        edition of the quants
    n_weights  parameters of the model
    files      in the order of the menu; those that an earlier run made for the same source are among them
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


@checked
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
    keep_source: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> PressResult:
    """Quantize a checkpoint to GGUF files that are, byte for byte, llama.cpp's.

    A file that an earlier run made in the same folder from the same source stays, once its bytes are checked; any other
    file in the way is an error, unless `force` is given.

    source        Hugging Face folder of a model, an F16, BF16 or F32 GGUF of one, or, where there is no such
                  file, a step of a run as RUN@STEP, or a model of the Hub as NAME[@STEP]
    out           folder to write; default NAME-GGUF beside the working directory
    quants        "all", or names of the menu, as a list or separated by commas; none for the unquantized file alone
    mix           "2026" (llama.cpp 0c1e57098) or "2024" (the rules of older published files)
    threads       worker threads; default one per CPU; the result does not depend on it
    name          NAME of the files; default the source's own, or what of it can begin a file name
    quantized_by  who goes into the card
    dry_run       plan and sizes only: no weight is read, nothing is written
    force         make these files anew, and replace whatever else is there and may not stay
    keep_f16      also leave the unquantized file
    keep_source   of a model of the Hub: fetch its weights into the cache, instead of reading each one once
    imatrix       importance matrix, of `pythia imatrix` or llama.cpp's; the path goes into the files, as llama.cpp does
    progress      hears what is going on
    Raises        UsageError, ModelFileError, StorageError, LockedError, NetworkError; whatever happens, a final name
                  holds either what it held before or a whole file
    """
    started = time.perf_counter()
    progress = progress or Silence()
    names = ",".join(texts("quants", quants))
    chosen = select_quants(names) if names or not keep_f16 else ()
    find_mix(mix)
    n_threads = threads_of(threads)
    if out is not None and not dry_run:
        check_folder_place(out)
    found = find_source(source, keep=keep_source and not dry_run, progress=progress)
    own_name = legal_name(found.name) if name is None else check_name(name)
    if keep_source and not found.is_of_hub:
        raise UsageError(Argument("keep_source"), " changes nothing for a source that is on this machine")
    opened = open_source(found.path, own_name, found.place)
    if imatrix is not None:
        opened = with_imatrix(opened, Path(imatrix))
    notes = (*found.notes, *opened.notes)
    folder = Path(out) if out is not None else Path(f"{opened.name}-GGUF")
    opened.refuse_folder(folder)
    items = _items(opened, chosen, mix, keep_f16)
    if dry_run:
        return _result(opened, folder, mix, items, {}, frozenset(), started, notes)
    version = installed.version("pythia-gguf")
    _make_folder(folder)
    with lock_folder(folder), Staging(folder) as staging:
        anew = frozenset(item.file for item in items) if force else None
        finished = find_finished(folder, tool_version=version, name=opened.name, mix=mix, anew=anew)
        there = finished.there if finished else frozenset()
        chosen = tuple(q for q in QUANTS.values() if q in chosen or file_name(opened.name, q.name) in there)
        keep_f16 = keep_f16 or file_name(opened.name, plain_format(opened)) in there
        items = _items(opened, chosen, mix, keep_f16)
        opened.refuse_files(folder / item.file for item in items)
        if not force:
            refuse_unknown(folder, finished, items)
        job = _Job(source=opened, items=items, finished=finished, staging=staging, progress=progress)
        run = CardRun(
            tool_version=version,
            command=command_text(found, opened, items, mix),
            mix=mix,
            quantized_by=quantized_by or (finished.quantized_by if finished and finished.is_same else None),
            imatrix=imatrix_text(opened),
        )
        sums, kept, told = _fill(job, run, n_threads)
        notes += (*told, *other_model_note(opened, folder / items[0].file))
    return _result(opened, folder, mix, items, sums, kept, started, notes)


def _items(source: Source, quants: Sequence[Quant], mix: str, keep_plain: bool) -> tuple[MenuItem, ...]:
    menu = make_menu(source, quants, mix)
    return (*menu, plain_item(source)) if keep_plain else menu


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is to be done in a folder.

    items     all files that there will be
    finished  what earlier runs have made; None to make everything
    """

    source: Source
    items: Sequence[MenuItem]
    finished: Finished | None
    staging: Staging
    progress: Progress

    @property
    def kept(self) -> frozenset[str]:
        """Names of files that stay."""
        return self.finished.kept if self.finished else frozenset()

    @property
    def to_encode(self) -> list[MenuItem]:
        """What is neither there nor another name of another item."""
        return [item for item in self.items if item.file not in self.kept and item.alias_of is None]


def _fill(job: _Job, run: CardRun, threads: int) -> tuple[dict[str, str], frozenset[str], tuple[str, ...]]:
    """Check what is there, make what is missing; the hash of each file by its name, the names of those kept, notes."""
    folder, staging = job.staging.folder, job.staging
    check_places(folder, [item.file for item in job.items], sum(item.n_bytes for item in job.to_encode))
    formats = {e.format for item in job.to_encode for e in item.entries}
    with Compiling(formats, is_weighted=job.source.imatrix is not None, threads=threads) as compiling:
        sources = _hash_sources(job.source, job.progress)
        made_from = source_entry(job.source.kind, sources, _hash_imatrix(job.source), job.source.copies)
        if job.finished:
            job = replace(job, finished=_check_kept(job.finished, made_from, job.items, job.progress))
        if job.to_encode:
            compiling.wait(job.progress)
    finished = job.finished
    tensors = dict(finished.tensors) if finished else {}
    sums = _encode(job, threads, tensors)
    card, card_sha256 = _card(job, sums, sources, run)
    manifest = manifest_text(
        tool_version=run.tool_version,
        name=job.source.name,
        mix=run.mix,
        source=made_from,
        items=job.items,
        sha256=sums,
        tensors=tensors,
        card_sha256=card_sha256,
        quantized_by=run.quantized_by,
        hidden_act=job.source.hidden_act,
        special_tokens=job.source.special_tokens,
    )
    staging.write(SUMS, sums_text(sums))
    staging.write(CARD, card)
    staging.publish(manifest)
    return sums, job.kept, _notes(job, sums, run)


def _card(job: _Job, sums: Mapping[str, str], sources: Sequence[SourceFile], run: CardRun) -> tuple[str, str | None]:
    """The card, and the hash of the last one that was written by us alone.

    One that somebody has edited stays, but for the list of files.
    """
    done, text = job.finished, partial(card_text, job.source, job.items, sums, sources, run)
    if done is None or not done.is_same or done.card is None:
        return (card := text()), card_digest(card)
    gone = done.listed.keys() - sums.keys()
    old = without_files(done.card, gone | (_quants_of(gone, job.source.name) - _quants_of(sums, job.source.name)))
    if not done.is_own_card:
        return card_with(old, job.source.name, card_files(job.items, sums)) or old, done.card_sha256
    if done.listed == sums and done.quantized_by == run.quantized_by:
        return done.card, done.card_sha256
    card = in_unix_lines(old, lambda old: keep_measured(old, text()))
    return card, card_digest(card)


def _quants_of(files: Container[str], name: str) -> set[str]:
    """What some files are quantized to; reports call an alias by the name of its original."""
    return {q.alias_of or q.name for q in QUANTS.values() if file_name(name, q.name) in files}


def _check_kept(
    finished: Finished, source: Mapping[str, Any], items: Sequence[MenuItem], progress: Progress
) -> Finished:
    """What may stay; raises UsageError for what may not, unless the run is forced."""
    n_bytes = sum(item.n_bytes for item in items if item.file in finished.kept)
    progress.stage("checking finished files", n_bytes, "bytes")
    return finished.checked(source, items, progress.advance)


def _encode(job: _Job, threads: int, tensors: dict[tuple[str, str], str]) -> dict[str, str]:
    """Stage the missing files; the hash of each file by its name. Hashes of new tensors are added to `tensors`."""
    source, staging = job.source, job.staging
    sums = {file: digest for file, digest in job.finished.listed.items() if file in job.kept} if job.finished else {}
    quantized = [item for item in job.to_encode if item.quant not in UNQUANTIZED]
    plain = [item for item in job.to_encode if item.quant in UNQUANTIZED]
    for items, order, stage in (
        (quantized, [t.name for t in source.tensors], "encoding"),
        (plain, source.file_order, "writing the unquantized file"),
    ):
        if items:
            # Loaded here: without files to make, nobody needs kernels or the library that compiles them.
            from pythia_gguf.press.pressing import press

            job.progress.stage(stage, source.n_weights, "weights")
            outputs = [item.output(staging.path) for item in items]
            pressed = press(source, outputs, order=order, threads=threads, advance=job.progress.advance)
            tensors |= pressed.tensors
            sums |= {path.name: digest for path, (_, digest) in pressed.files.items()}
    originals = {item.quant: item.file for item in job.items}
    for item in job.items:
        if item.alias_of is not None:
            original = originals[item.alias_of]
            staging.link(original, item.file, or_copy=item.file not in job.kept)
            sums[item.file] = sums[original]
    return {item.file: sums[item.file] for item in job.items}


def _notes(job: _Job, sums: Mapping[str, str], run: CardRun) -> tuple[str, ...]:
    """What the lists of the folder do not say."""
    done, notes = job.finished, []
    if done and (gone := sorted(done.listed.keys() - sums.keys() - done.there)):
        notes.append(f"not listed any more, as they are gone: {', '.join(gone)}")
    if strangers := sorted(p.name for p in job.staging.folder.glob("*.gguf") if p.name not in sums):
        notes.append(f"here too, but not of this run and not listed: {', '.join(strangers)}")
    is_edited = done and done.is_same and done.card is not None and not done.is_own_card
    if done and is_edited and (done.listed != sums or done.quantized_by != run.quantized_by):
        notes.append(f"somebody has edited {CARD}: nothing but its list of files was renewed")
    return tuple(one_line(note) for note in notes)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(folder, e) from e


def _hash_sources(source: Source, progress: Progress) -> tuple[SourceFile, ...]:
    elsewhere = source.elsewhere
    with_sizes = [(path, path.stat().st_size) for path in source.files if path not in elsewhere]
    progress.stage("hashing the source", sum(n for _, n in with_sizes), "bytes")
    found = [
        SourceFile(name=path.name, n_bytes=elsewhere[path].n_bytes, sha256=elsewhere[path].sha256)
        for path in source.files
        if path in elsewhere
    ]
    for path, n_bytes in with_sizes:
        digest = hashlib.sha256()
        for chunk in iter_file_checked(path):
            digest.update(chunk)
            progress.advance(path.name, len(chunk))
        # huggingface_hub's cache names the content of LFS files by its hash.
        if _SHA256.fullmatch(named := path.resolve().name) and named != digest.hexdigest():
            raise ModelFileError("is damaged: its hash differs from its name in the cache. Delete it", path=path)
        found.append(SourceFile(name=path.name, n_bytes=n_bytes, sha256=digest.hexdigest()))
    return tuple(found)


def _hash_imatrix(source: Source) -> SourceFile | None:
    if source.imatrix is None:
        return None
    path = source.imatrix.path
    return SourceFile(name=path.name, n_bytes=path.stat().st_size, sha256=sha256_of(path))


def _result(
    source: Source,
    folder: Path,
    mix: str,
    items: Sequence[MenuItem],
    sums: Mapping[str, str],
    there: Container[str],
    started: float,
    notes: tuple[str, ...],
) -> PressResult:
    files = tuple(
        PressFile(
            quant=i.quant,
            path=folder / i.file,
            n_bytes=i.n_bytes,
            bits_per_weight=i.bits_per_weight,
            sha256=sums.get(i.file),
            alias_of=i.alias_of,
            kept=i.file in there,
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
        notes=(*notes, *notes_of(source, items, mix)),
        seconds=time.perf_counter() - started,
    )
