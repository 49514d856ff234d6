"""A folder of GGUF files, as found on disks and on the Hub: which of them is meant, by what each file holds.

Knows no file name but to tell apart files that hold the same: a quant is what header and tensors say.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError, nearest, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.gguf.reader import GGUFFile, open_gguf, refuse_part
from pythia_gguf.intake.mistaken import refuse_other_gguf
from pythia_gguf.plan.quants import QUANTS, quant_of_file_type
from pythia_gguf.plan.recognize import quant_of

# Never quantized, so every file of a model has the same bytes of it.
_SAME_IN_ALL = "output_norm.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile:
    """A file that holds a whole model.

    quant  of the menu, never a second name; or F16, BF16, F32
    said   what its keys say, which is another where no row was of whole blocks and nothing could be quantized
    model  the same for all files of one model: a hash of its name, its sizes and of weights that are never quantized
    """

    path: Path
    quant: str
    said: str
    model: str


def canonical(quant: str) -> str:
    """A quant's own name: "Q4_K_M" for "q4_k"; what is no quant stays, in capitals."""
    found = QUANTS.get(quant.upper())
    return quant.upper() if found is None else found.alias_of or found.name


def quant_of_file(path: Path) -> str:
    """What a GGUF is quantized to; raises ModelFileError, StorageError."""
    return _quant(open_gguf(path))


def files_in(folder: Path) -> tuple[tuple[FolderFile, ...], tuple[PythiaGGUFError, ...]]:
    """The files of whole models, and why others are none: damaged, a part, an importance matrix, an adapter."""
    files: list[FolderFile] = []
    faults: list[PythiaGGUFError] = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as e:
        raise StorageError(f"{one_line(str(folder))}: cannot list: {e.strerror}") from e
    for path in paths:
        if path.suffix.lower() != ".gguf" or path.name.startswith("."):
            continue
        try:
            gguf = open_gguf(path)
            refuse_other_gguf(gguf)
            refuse_part(gguf)
            files.append(FolderFile(path=path, quant=_quant(gguf), said=_said(gguf), model=_model(gguf)))
        except (ModelFileError, StorageError) as e:
            faults.append(e)
    return tuple(files), tuple(faults)


def file_in(folder: Path, quant: str | None) -> Path | None:
    """The file of a quant, or the only one; None where the folder has no such file.

    Raises UsageError that says which files there are where it is not clear which one is meant
    """
    files, _ = files_in(folder)
    if len({file.model for file in files}) > 1:
        raise UsageError(f"{one_line(str(folder))}: holds files of several models. Give one: {_names(files)}")
    wanted = [file for file in files if quant is None or file.quant == canonical(quant)]
    wanted = wanted or [file for file in files if file.said == canonical(quant or "")]
    if len({file.quant for file in wanted}) > 1:
        quants = ", ".join(sorted({file.quant for file in wanted}, key=_place))
        raise UsageError(f"{one_line(str(folder))}: which of them? Say {folder.name}:QUANT, with {quants}")
    if len({_without_quant(file) for file in wanted}) > 1 or not _are_equal(wanted):
        raise UsageError(f"{one_line(str(folder))}: which of them? Give the file itself: {_names(wanted)}")
    # Of equal files the one with the name that was asked for: Q4_K is another name of Q4_K_M.
    by_name = {_end(file).upper(): file.path for file in reversed(wanted)}
    return by_name.get((quant or "").upper()) or (wanted[0].path if wanted else None)


def no_such_file(folder: Path, quant: str | None) -> PythiaGGUFError:
    """Why a folder has no file of a quant, or none at all."""
    files, faults = files_in(folder)
    if not files and faults:
        return faults[0]
    others = f". Left out: {one_line(str(faults[0]))}" if faults else ""
    said = nearest(quant or "", {file.quant for file in files})
    return UsageError(f"{one_line(str(folder))}: no {quant} here{said}{others}")


def _quant(gguf: GGUFFile) -> str:
    return canonical(quant_of(gguf.metadata, gguf.formats))


def _said(gguf: GGUFFile) -> str:
    file_type = gguf.metadata.get("general.file_type")
    return quant_of_file_type(int(file_type)) or "" if isinstance(file_type, Integral) else ""


def _model(gguf: GGUFFile) -> str:
    architecture = str(gguf.metadata.get("general.architecture"))
    keys = ("general.architecture", "general.name", *(k for k in gguf.metadata if k.startswith(f"{architecture}.")))
    digest = hashlib.sha256(repr([(key, gguf.metadata.get(key)) for key in sorted(keys)]).encode("utf-8", "replace"))
    same = gguf.tensors.get(_SAME_IN_ALL)
    if same is not None:
        with RegularFile(gguf.path) as file:
            digest.update(sha256_range(file, gguf.data_offset + same.offset, same.n_bytes).encode())
    return digest.hexdigest()


def _end(file: FolderFile) -> str:
    """The end of a file's name, where that is a name of its quant; else nothing."""
    names = [q.name for q in QUANTS.values() if file.quant in (q.name, q.alias_of)] or [file.quant]
    match = re.search(rf"[._-]({'|'.join(names)})$", file.path.stem, re.IGNORECASE)
    return match[1] if match else ""


def _without_quant(file: FolderFile) -> str:
    return file.path.stem.removesuffix(_end(file))


def _are_equal(files: list[FolderFile]) -> bool:
    first = files[0].path if files else None
    return all(os.path.samefile(first, f.path) or filecmp.cmp(first, f.path, shallow=False) for f in files[1:] if first)


def _names(files: Iterable[FolderFile]) -> str:
    return ", ".join(one_line(file.path.name, 100) for file in files)


def _place(quant: str) -> int:
    return list(QUANTS).index(quant) if quant in QUANTS else len(QUANTS)
