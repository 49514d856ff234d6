"""Files to measure: what each holds by its header, which are links to one file, and what each is compared with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.arch import ARCHITECTURES
from pythia_gguf.engine.weights import matrix_formats
from pythia_gguf.errors import Argument, StorageError, UsageError, one_line
from pythia_gguf.gguf.fingerprint import are_of_one_model, vectors_of
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.intake.mistaken import refuse_other_folder
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.plan.recognize import is_unquantized, quant_of
from pythia_gguf.press.source import UNQUANTIZED


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file and what its header says.

    quant     of the menu, or the type of an unquantized file
    is_plain  whether its matrices are unquantized
    links     other names of the same file among those that were given
    kind      `general.architecture` and `general.type`
    name      `general.name`
    shapes    of all tensors by name
    tokens    hash of the vocabulary
    vectors   hashes of what is never quantized
    bits_per_weight  over all tensors, without the header
    """

    path: Path
    links: tuple[Path, ...]
    quant: str
    is_plain: bool
    kind: tuple[object, object]
    name: object
    shapes: Mapping[str, tuple[int, ...]]
    tokens: int
    vectors: Mapping[str, str]
    bits_per_weight: float


def find_files(names: Sequence[str | os.PathLike[str]]) -> list[ModelFile]:
    """Files, and the models in folders, each once.

    Raises StorageError, UsageError for a folder without any, ModelFileError for a file that is no model
    """
    found: dict[tuple[int, int], dict[Path, None]] = {}
    inside: set[tuple[int, int]] = set()
    for path in map(Path, names):
        if not path.exists():
            raise StorageError(f"{one_line(str(path))}: no such file or folder")
        paths = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
        if not path.is_dir():
            open_gguf_model(path)
        if not paths:
            refuse_other_folder(path)
            raise UsageError(f"{one_line(str(path))}: no .gguf file in this folder")
        for p in paths:
            found.setdefault(_identity(p), {})[p] = None
            if path.is_dir():
                inside.add(_identity(p))
    files = {key: _described(list(paths)) for key, paths in found.items()}
    # Nobody has asked for what lies beside the models in a folder, such as importance matrices and adapters.
    models = [file for key, file in files.items() if key not in inside or _is_model(file)]
    if not models:
        raise UsageError(f"{one_line(str(Path(names[0])))}: no .gguf file of a model in this folder")
    return models


def alias_of(file: ModelFile, link: Path) -> str:
    """The second name of a quant by which a file is called, as Q4_K for Q4_K_M; else its quant."""
    known = QUANTS.get(link.stem.rpartition(".")[2])
    return known.name if known and known.alias_of == file.quant else file.quant


def pair_with_references(files: Sequence[ModelFile], reference: Path | None) -> list[tuple[ModelFile, list[ModelFile]]]:
    """References, each with the files that are compared with it.

    reference  for all; None: for each file the unquantized one of its model in its own folder, else among the files
    Raises     UsageError for a file without such a reference, or with several, and for another model than it
    """
    pairs: dict[Path, tuple[ModelFile, list[ModelFile]]] = {}
    given = None if reference is None else _described([reference])
    beside: dict[Path, list[ModelFile]] = {}
    for file in files:
        base = given or _reference_of(file, files, beside)
        if (problem := _difference(file, base)) is not None:
            raise UsageError(f"{one_line(str(file.path))}: not the same model as {one_line(str(base.path))}: {problem}")
        pairs.setdefault(base.path, (base, []))[1].append(file)
    return list(pairs.values())


def folders_that_tell_apart(paths: Iterable[Path]) -> Mapping[Path, str]:
    """For each path that shares its file name with another, the shortest end of its folder that is its own."""
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        by_name.setdefault(path.name, []).append(path)
    found = {}
    for path, same in ((p, alike) for alike in by_name.values() if len(alike) > 1 for p in alike):
        parts, n = path.absolute().parent.parts, 1
        others = [p.absolute().parent.parts for p in same if p != path]
        while n < len(parts) and any(other[-n:] == parts[-n:] for other in others):
            n += 1
        found[path] = "/".join(parts[-n:])
    return found


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _described(paths: Sequence[Path]) -> ModelFile:
    # The longest name is the quant's own: Q4_K is another name of Q4_K_M.
    path, *links = sorted(paths, key=lambda p: (-len(p.name), str(p)))
    gguf = open_gguf(path)
    tensors, keys = gguf.tensors, gguf.metadata
    tokens = keys.get("tokenizer.ggml.tokens")
    n_weights = sum(math.prod(t.shape) for t in tensors.values())
    return ModelFile(
        path=path,
        links=tuple(links),
        quant=quant_of(keys, gguf.formats),
        is_plain=is_unquantized(matrix_formats(gguf)),
        kind=(keys.get("general.architecture"), keys.get("general.type", "model")),
        name=keys.get("general.name"),
        shapes={name: tuple(t.shape) for name, t in tensors.items()},
        tokens=hash(tuple(tokens)) if isinstance(tokens, list) else 0,
        vectors=vectors_of(gguf),
        bits_per_weight=sum(t.n_bytes for t in tensors.values()) * 8 / max(1, n_weights),
    )


def _is_model(file: ModelFile) -> bool:
    architecture, kind = file.kind
    return architecture in ARCHITECTURES and kind == "model"


def _reference_of(file: ModelFile, files: Sequence[ModelFile], beside: dict[Path, list[ModelFile]]) -> ModelFile:
    folder = file.path.parent
    if folder not in beside:
        known = {f.path: f for f in files}
        beside[folder] = [known.get(p) or _described([p]) for p in sorted(folder.glob("*.gguf"))]
    for place in (beside[folder], files):
        fitting = [f for f in place if f.is_plain and _is_model(f) and _is_same_model(file, f)]
        if fitting:
            return _nearest(file, fitting)
    raise UsageError(
        f"{one_line(str(file.path))}: no unquantized file of this model beside it: name one with ",
        Argument("reference"),
        ", or keep one with `pythia quantize --keep-f16`",
    )


def _nearest(file: ModelFile, fitting: Sequence[ModelFile]) -> ModelFile:
    """Among files with a model of this name, sizes and vectors, the one that is called like this file, if any."""
    called = _without_quant(file.path)
    best = [f for f in fitting if _without_quant(f.path) == called] or list(fitting)
    best.sort(key=lambda f: UNQUANTIZED.index(f.quant))
    if len(best) > 1 and best[0].quant == best[1].quant and _identity(best[0].path) != _identity(best[1].path):
        raise UsageError(
            f"{one_line(str(file.path))}: compared with which, {one_line(best[0].path.name)} or"
            f" {one_line(best[1].path.name)}? Name one with ",
            Argument("reference"),
        )
    return best[0]


def _without_quant(path: Path) -> str:
    """The name of a file without its last part, which mostly says its quant."""
    return path.stem[: max(path.stem.rfind("."), path.stem.rfind("-"), 0)]


def _is_same_model(a: ModelFile, b: ModelFile) -> bool:
    has_one_name = len({a.name, b.name} - {None}) < 2
    return has_one_name and _difference(a, b) is None and are_of_one_model(a.vectors, b.vectors)


def _difference(a: ModelFile, b: ModelFile) -> str | None:
    """Why two files are not one model in two types; None where their headers show no reason."""
    for name in sorted({*a.shapes, *b.shapes}):
        shapes = [file.shapes.get(name) for file in (a, b)]
        if shapes[0] != shapes[1]:
            said = ["missing" if shape is None else " x ".join(map(str, shape)) for shape in shapes]
            return f"{one_line(name, 60)} is {said[0]}, and {said[1]} there"
    return None if a.tokens == b.tokens else "its tokens are others"
