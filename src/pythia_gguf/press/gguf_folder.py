"""Finds the GGUF file that a user wants in any folder of them, by what each file holds.

A file's header and tensors tell its quant; its name only tells apart files that hold the same.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.gguf.reader import GGUFFile, open_gguf, refuse_part
from pythia_gguf.intake.mistaken import refuse_other_gguf
from pythia_gguf.plan.meant import QuantFile, no_such_file, pick
from pythia_gguf.plan.recognize import quants_of

# This tensor is never quantized, so all files of a model have the same bytes of it.
_SAME_IN_ALL = "output_norm.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile(QuantFile):
    """A file in a folder.

    said   the quant in its keys; it is another one where no row had whole blocks, so that nothing could be quantized
    model  a hash of its name, its sizes, and of weights that are never quantized
    """

    path: Path


def files_in(folder: Path) -> tuple[tuple[FolderFile, ...], tuple[PythiaGGUFError, ...]]:
    """The files of whole models, and for each other file why it is none: damaged, a part, an importance matrix, ..."""
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
            quant, said = quants_of(gguf.metadata, gguf.formats)
            files.append(FolderFile(path=path, name=path.name, quant=quant, said=said, model=_model(gguf)))
        except (ModelFileError, StorageError) as e:
            faults.append(e)
    return tuple(files), tuple(faults)


def file_in(folder: Path, quant: str | None) -> Path | None:
    """The file of a quant, or the only file; None where the folder has no such file.

    Raises UsageError that lists the files, where several could be meant.
    """
    found = pick(files_in(folder)[0], quant, where=str(folder), call=folder.name, are_equal=_are_equal)
    return None if found is None else found.path


def no_such_quant(folder: Path, quant: str | None) -> PythiaGGUFError:
    """Why a folder has no file of a quant, or none at all."""
    files, faults = files_in(folder)
    if not files and faults:
        return faults[0]
    why = no_such_file(files, quant, str(folder))
    return UsageError(f"{why}. Left out: {one_line(str(faults[0]))}") if faults else why


def _model(gguf: GGUFFile) -> str:
    architecture = str(gguf.metadata.get("general.architecture"))
    keys = ("general.architecture", "general.name", *(k for k in gguf.metadata if k.startswith(f"{architecture}.")))
    digest = hashlib.sha256(repr([(key, gguf.metadata.get(key)) for key in sorted(keys)]).encode("utf-8", "replace"))
    same = gguf.tensors.get(_SAME_IN_ALL)
    if same is not None:
        with RegularFile(gguf.path) as file:
            digest.update(sha256_range(file, gguf.data_offset + same.offset, same.n_bytes).encode())
    return digest.hexdigest()


def _are_equal(files: Sequence[FolderFile]) -> bool:
    first = files[0].path if files else None
    return all(os.path.samefile(first, f.path) or filecmp.cmp(first, f.path, shallow=False) for f in files[1:] if first)
