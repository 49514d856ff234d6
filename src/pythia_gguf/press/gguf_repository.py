"""Finds the GGUF file that a name means in a repository, by the names of its files, and fetches that file alone.

Once the file is here, the quant in its name is compared with its content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.hub.client import Hub, Revision, UnreachableError
from pythia_gguf.hub.model_name import ModelName
from pythia_gguf.hub.pull import fetch, holds_checkpoint
from pythia_gguf.hub.readers import is_gguf_model
from pythia_gguf.plan.meant import QuantFile, no_such_file, pick, quants_in
from pythia_gguf.plan.quants import QUANTS, canonical
from pythia_gguf.plan.recognize import quants_of
from pythia_gguf.press.manifest import MANIFEST, SUMS
from pythia_gguf.press.source import UNQUANTIZED
from pythia_gguf.progress import Progress

# Files beside a GGUF that say how to check and run it.
_BESIDE = (MANIFEST, SUMS, "config.json", "README.md")
_PART = re.compile(r"(?P<whole>.+)-\d{5}-of-(?P<n>\d{5})\.gguf", re.IGNORECASE)
# The end of a file's name that names its quant, one of ours or not.
_END = re.compile(
    r"(?:^|[._-])(?P<quant>(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|(?:MX|NV)FP4\w*|BF16|FP?16|FP?32))$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile(QuantFile):
    """A file of a repository, or of the part of one that is on this machine; its name is its path there.

    content  a hash of its bytes
    n_parts  number of parts that it is split into
    """

    content: str
    n_parts: int = 1


def repository_gguf(name: ModelName, revision: Revision, hub: Hub, progress: Progress | None = None) -> Path | None:
    """Fetch the GGUF that a name means, and files that say how to run it; None and errors as `gguf_named`, `fetch`."""
    file = gguf_named(name, revision)
    if file is None:
        return None
    folder = PurePosixPath(file).parent
    beside = [str(folder / text) for text in _BESIDE if str(folder / text) in revision.files]
    path = fetch(name, revision, [file, *beside], hub, progress) / file
    _check_quant(name, file, path)
    return path


def gguf_named(name: ModelName, revision: Revision) -> str | None:
    """The GGUF that a name means in a repository; None where it means a checkpoint, or there are no GGUF files.

    In a repository that holds both, a name with a quant means the file of that quant if there is one.
    Raises UsageError that lists the files, where several could be meant.
    """
    files = _listed({path: file.sha256 or file.blob_id for path, file in revision.files.items()})
    is_checkpoint = holds_checkpoint(revision)
    if name.file is None and (not files or (is_checkpoint and name.quant is None)):
        return None
    meant = _meant(name, files)
    if meant is None and is_checkpoint and name.file is None:
        return None
    if meant is None:
        raise no_such_file(files, name.file or name.quant, _where(name))
    return meant.name


def kept_gguf(name: ModelName, snapshot: Path) -> Path | None:
    """The same for files that an earlier run fetched, without a network; None where a checkpoint is meant.

    Raises UnreachableError where only other GGUF files are here.
    """
    paths = [path for path in snapshot.rglob("*") if path.is_file()]
    files = _listed({path.relative_to(snapshot).as_posix(): os.path.realpath(path) for path in paths})
    is_checkpoint = any(path.suffix in (".safetensors", ".bin") for path in paths)
    if not files or (is_checkpoint and name.quant is None and name.file is None):
        return None
    meant = _meant(name, files)
    if meant is not None:
        return snapshot / meant.name
    if is_checkpoint and name.file is None:
        return None
    raise UnreachableError(f"{name}: not in the cache, which holds {quants_in(files)}, and the Hub cannot be reached")


def _listed(contents: Mapping[str, str]) -> tuple[ListedFile, ...]:
    """Files of whole models, a split one once; `contents` is path -> a hash of the bytes."""
    found: dict[str, ListedFile] = {}
    for path in sorted(filter(is_gguf_model, contents)):
        whole, n_parts = _whole(path)
        stem = PurePosixPath(whole[: -len(".gguf")])
        end = _END.search(stem.name)
        quant = canonical(_named(end["quant"])) if end else PurePosixPath(whole).name
        folders = [folder for folder in stem.parts[:-1] if quant.lower() not in folder.lower()]
        model = "/".join([*folders, stem.name[: end.start()] if end else stem.name]).lower()
        found[whole] = ListedFile(name=whole, quant=quant, model=model, content=contents[path], n_parts=n_parts)
    return tuple(found.values())


def _whole(path: str) -> tuple[str, int]:
    """The name that a split file would have as a whole, and its number of parts."""
    part = _PART.fullmatch(path)
    return (f"{part['whole']}.gguf", int(part["n"])) if part and int(part["n"]) > 1 else (path, 1)


def _named(quant: str) -> str:
    """Our name of a quant: F16 for fp16."""
    return re.sub("^FP", "F", quant.upper())


def _where(name: ModelName) -> str:
    return str(replace(name, quant=None, file=None))


def _meant(name: ModelName, files: Sequence[ListedFile]) -> ListedFile | None:
    """The file that is meant, or None; raises UsageError where several could be, or where it is split."""
    where = _where(name)
    if name.file is not None:
        meant = next((file for file in files if file.name == _whole(str(name.file))[0]), None)
    else:
        quant = None if name.quant is None else _named(name.quant)
        meant = pick(files, quant, where=where, call=where, before=f"{where}:", are_equal=_are_equal)
        # A file that is alone may be meant whatever its name.
        meant = files[0] if meant is None and len(files) == 1 and files[0].quant.lower().endswith(".gguf") else meant
    if meant is not None and meant.n_parts > 1:
        raise UsageError(
            f"{where}: {one_line(meant.name, 100)} is split into {meant.n_parts} files. Fetch them, and put them"
            " together with llama-gguf-split --merge"
        )
    return meant


def _are_equal(files: Sequence[ListedFile]) -> bool:
    return len({file.content for file in files}) < 2


def _check_quant(name: ModelName, file: str, path: Path) -> None:
    """Raises UsageError where a file holds another quant than it was taken for."""
    asked = canonical(_named(name.quant or ""))
    if asked not in (*QUANTS, *UNQUANTIZED):
        return
    gguf = open_gguf(path)
    quant, said = quants_of(gguf.metadata, gguf.formats)
    if asked not in (quant, said):
        raise UsageError(
            f"{name}: {one_line(file, 100)} holds {quant}. To take it so, give {replace(name, quant=None, file=file)}"
        )
