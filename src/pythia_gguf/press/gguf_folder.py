"""A folder of GGUF files, as found on disks and on the Hub: which of them is meant, by what each file holds.

Knows no file name but to tell apart files that hold the same: a quant is what header and tensors say.
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

# Never quantized, so every file of a model has the same bytes of it.
_SAME_IN_ALL = "output_norm.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile(QuantFile):
    """A file in a folder.

    said   what its keys say, which is another quant where no row was of whole blocks and nothing could be quantized
    model  a hash of its name, its sizes and of weights that are never quantized
    """

    path: Path


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
            quant, said = quants_of(gguf.metadata, gguf.formats)
            files.append(FolderFile(path=path, name=path.name, quant=quant, said=said, model=_model(gguf)))
        except (ModelFileError, StorageError) as e:
            faults.append(e)
    return tuple(files), tuple(faults)


def file_in(folder: Path, quant: str | None) -> Path | None:
    """The file of a quant, or the only one; None where the folder has no such file.

    Raises UsageError that says which files there are where it is not clear which one is meant
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
