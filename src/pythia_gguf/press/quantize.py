"""The main job: one checkpoint in, a folder of GGUF files with card, checksums and manifest out.

`pressing.py` encodes a source, and `folder.py` says which files of an earlier run may stay; here both meet.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata as installed
from pathlib import Path

from pythia_gguf.arguments import checked
from pythia_gguf.card.card import CardRun
from pythia_gguf.cpus import threads_of
from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.files import check_folder_place
from pythia_gguf.formats import FORMATS
from pythia_gguf.plan.quants import QUANTS, Quant, find_mix
from pythia_gguf.press.account import card_files, card_text, command_text, imatrix_text, notes_of, other_model_note
from pythia_gguf.press.file_names import file_name
from pythia_gguf.press.find_source import SourceLocation, find_source, open_location
from pythia_gguf.press.folder import Folder, open_folder
from pythia_gguf.press.folder_card import renewed_card
from pythia_gguf.press.manifest import CARD, MANIFEST, SUMS, manifest_text, sums_text
from pythia_gguf.press.menu import MenuItem, make_menu, plain_format, quants_asked
from pythia_gguf.press.source import UNQUANTIZED, Source
from pythia_gguf.press.source_hashes import SourceFile, hash_source, source_entry
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.side_task import SideTask


@dataclass(frozen=True, slots=True, kw_only=True)
class PressFile:
    """One file of the menu.

    quant     name in the menu
    path      its path, also in a forecast
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
    """The files that a run made and kept, or with `dry_run` would make.

    name       NAME of the files
    folder     the folder that holds them
    mix        edition of the quants
    n_weights  parameters of the model
    files      in the order of the menu, including files that an earlier run made from the same source
    notes      notes for the reader, one line each
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
    name          NAME of the files; default the source's own name, or the part of it that can begin a file name
    quantized_by  a name for the card
    dry_run       plan and sizes only: no weight is read, nothing is written
    force         make these files anew, and replace other files there that may not stay
    keep_f16      also keep the unquantized file
    keep_source   for a model of the Hub: fetch its weights into the cache, instead of reading each one once
    imatrix       importance matrix, from `pythia imatrix` or llama.cpp; its path goes into the files, as in llama.cpp
    progress      hears what is going on
    Raises        UsageError, ModelFileError, StorageError, LockedError, NetworkError; whatever happens, a final name
                  holds either what it held before or a whole file
    """
    started = time.perf_counter()
    progress = progress or Silence()
    chosen = quants_asked(quants, with_plain=keep_f16)
    find_mix(mix)
    n_threads = threads_of(threads)
    if out is not None and not dry_run:
        check_folder_place(out)
    found = find_source(source, keep=keep_source and not dry_run, progress=progress)
    if keep_source and not found.is_of_hub:
        raise UsageError(Argument("keep_source"), " changes nothing for a source that is on this machine")
    opened = open_location(found, name, imatrix)
    path = Path(out) if out is not None else Path(f"{opened.name}-GGUF")
    opened.refuse_folder(path)
    run = _Run(found=found, source=opened, quants=chosen, mix=mix, keep_plain=keep_f16, quantized_by=quantized_by)
    if dry_run:
        return _result(run, path, run.menu(), started)
    # The hash of the source is the longest thing that nothing can be done beside, so it begins as soon as it can.
    with (
        SideTask(partial(hash_source, opened), threads=n_threads) as hashing,
        open_folder(path, force=force) as folder,
    ):
        asked = run.menu()
        items = run.menu(folder.there) if folder.there else asked
        opened.refuse_files(path / item.file for item in items)
        anew = [item.file for item in asked]
        folder.look(items, tool_version=run.tool_version, name=opened.name, mix=mix, anew=anew)
        sums, notes = _fill(folder, run, items, hashing, n_threads, progress)
    return _result(run, path, items, started, sums, folder.kept, notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The request for a run.

    found       location of the source that the user has named
    source      the source, opened
    quants      quants whose files the folder must hold in the end
    keep_plain  whether it must hold the unquantized file too
    """

    found: SourceLocation
    source: Source
    quants: Container[Quant]
    mix: str
    keep_plain: bool
    quantized_by: str | None

    @property
    def tool_version(self) -> str:
        """Version of this package: like the source, it decides the bytes of the files."""
        return installed.version("pythia-gguf")

    def menu(self, there: Container[str] = ()) -> tuple[MenuItem, ...]:
        """The files that were asked for, and files of the same source that an earlier run has left."""
        name = self.source.name
        quants = [q for q in QUANTS.values() if q in self.quants or file_name(name, q.name) in there]
        has_plain = self.keep_plain or file_name(name, plain_format(self.source)) in there
        return make_menu(self.source, quants, self.mix, with_plain=has_plain)


def _fill(
    folder: Folder,
    run: _Run,
    items: Sequence[MenuItem],
    hashing: SideTask[tuple[SourceFile, ...]],
    threads: int,
    progress: Progress,
) -> tuple[dict[str, str], list[str]]:
    """Check existing files and make missing ones; returns the hash of each file by its name, and notes.

    hashing  of the files of the source
    """
    source = run.source
    by = run.quantized_by or (folder.quantized_by if folder.is_same else None)
    # 1. Files that are obviously missing must fit on the disk. Their encoders compile while the source is hashed.
    folder.check_room(items)
    formats = {entry.format for item in folder.missing(items) for entry in item.entries}
    compile_encoders = partial(_compile_encoders, formats, source.imatrix is not None, threads)
    with SideTask(compile_encoders, threads=threads) as compiling:
        # 2. With the source's hash we know whether existing files come from the same source, and so which are missing.
        #    Where none may stay the hash is for the manifest only, and the pass begins without it.
        if folder.is_same or threads == 1:
            folder.check(items, source_entry(source, hashing.wait(progress)), progress)
        missing = folder.missing(items)
        if missing:
            compiling.wait(progress)
        # 3. Write new files into staging, where no reader finds a half-written one, and aliases beside them.
        made, tensors = _encode(source, missing, folder.staging.path, threads, progress, hashing.raise_failure)
        sums = folder.add(items, made)
    files = hashing.wait(Silence())
    # 4. Write card, sums and manifest, which list all files; the manifest is last, and with it all get their places.
    listed = card_files(items, sums)
    write = partial(card_text, source, listed, files, _card_run(run, items, by))
    card, card_sha256, card_notes = renewed_card(folder, source.name, listed, by, write)
    manifest = manifest_text(
        source,
        items,
        tool_version=run.tool_version,
        mix=run.mix,
        made_from=source_entry(source, files),
        sha256=sums,
        tensors=folder.tensors | tensors,
        card_sha256=card_sha256,
        quantized_by=by,
    )
    folder.staging.publish({CARD: card, SUMS: sums_text(sums), MANIFEST: manifest})
    notes = [one_line(note) for note in (*folder.notes(sums), *card_notes)]
    return sums, [*notes, *other_model_note(source, folder.path / items[0].file)]


def _card_run(run: _Run, items: Sequence[MenuItem], quantized_by: str | None) -> CardRun:
    return CardRun(
        tool_version=run.tool_version,
        command=command_text(run.found, run.source, items, run.mix),
        mix=run.mix,
        quantized_by=quantized_by,
        imatrix=imatrix_text(run.source),
    )


def _compile_encoders(formats: Container[str], is_weighted: bool, threads: int, progress: Progress) -> None:
    """Compile the encoders of some formats, or load them from the cache."""
    names = [name for name, block in FORMATS.items() if name in formats and block.block_weights > 1]
    if names:
        # The import stands here because even importing the compiler takes its time.
        from pythia_gguf.kernels.compiling import compile_all
        from pythia_gguf.kernels.encode import encoder_jobs

        compile_all(encoder_jobs(names, is_weighted=is_weighted), progress, threads)


def _encode(
    source: Source,
    items: Sequence[MenuItem],
    folder: Path,
    threads: int,
    progress: Progress,
    look_aside: Callable[[], None],
) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Write files; returns the hash of each by its name, and of each encoded tensor by its name and format.

    look_aside  is called now and then; what it raises ends the work
    """

    def advance(tensor: str, n_weights: int) -> None:
        look_aside()
        progress.advance(tensor, n_weights)

    sums: dict[str, str] = {}
    tensors: dict[tuple[str, str], str] = {}
    quantized = [item for item in items if item.quant not in UNQUANTIZED]
    plain = [item for item in items if item.quant in UNQUANTIZED]
    for some, order, stage in (
        (quantized, [tensor.name for tensor in source.tensors], "encoding"),
        (plain, source.file_order, "writing the unquantized file"),
    ):
        if some:
            # The import stands here because a run without files to make needs neither kernels nor their compiler.
            from pythia_gguf.press.pressing import press

            progress.stage(stage, source.n_weights, "weights")
            outputs = [item.output(folder) for item in some]
            written = press(source, outputs, order=order, threads=threads, advance=advance)
            tensors |= written.tensors
            sums |= {path.name: digest for path, (_, digest) in written.files.items()}
    return sums, tensors


def _result(
    run: _Run,
    folder: Path,
    items: Sequence[MenuItem],
    started: float,
    sums: Mapping[str, str] | None = None,
    kept: Container[str] = (),
    notes: Iterable[str] = (),
) -> PressResult:
    """The result of a run, or without `sums` a forecast of it."""
    source = run.source
    files = tuple(
        PressFile(
            quant=i.quant,
            path=folder / i.file,
            n_bytes=i.n_bytes,
            bits_per_weight=i.bits_per_weight,
            sha256=sums[i.file] if sums else None,
            alias_of=i.alias_of,
            kept=i.file in kept,
            plan={e.tensor: (e.format, e.reason) for e in i.entries},
        )
        for i in items
    )
    return PressResult(
        name=source.name,
        folder=folder,
        mix=run.mix,
        n_weights=source.n_weights,
        files=files,
        notes=(*run.found.notes, *source.notes, *notes, *notes_of(source, items, run.mix)),
        seconds=time.perf_counter() - started,
    )
