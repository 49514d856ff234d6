"""Checks whether GGUF files derive from a checkpoint: encodes it anew and compares every byte of the files.

Nothing is written. One read of the source serves all files of a folder, slab by slab, so that memory does not depend on
the size of the model.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pythia_gguf.arguments import checked
from pythia_gguf.cpus import threads_of
from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.files import RegularFile
from pythia_gguf.gguf.container import VERSION, Metadata, TensorInfo, Value, padded
from pythia_gguf.gguf.reader import GGUFFile
from pythia_gguf.gguf.values import value_bytes
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.kernels.encode import ENCODABLE
from pythia_gguf.plan.planner import make_plan
from pythia_gguf.plan.quants import MIXES, QUANTS
from pythia_gguf.plan.recognize import quant_of
from pythia_gguf.press.encoded import encode_tensors, open_to_encode
from pythia_gguf.press.file_names import is_legal
from pythia_gguf.press.manifest import read_manifest
from pythia_gguf.press.menu import MenuItem, make_menu, plain_item
from pythia_gguf.press.slabs import Slab
from pythia_gguf.press.source import PressTensor, Source
from pythia_gguf.press.verify import files_to_check
from pythia_gguf.progress import Progress, Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A quant of ours that gives every tensor of a file the format that it has there.

    quant, mix   "Q4_K_M" and "2026"; for an unquantized file its format and ""
    has_imatrix  whether it is the plan with an importance matrix
    """

    quant: str
    mix: str
    has_imatrix: bool


_Plans = list[tuple[Fit, dict[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDifference:
    """A key whose value in a file is not the expected one; None on the side that does not have the key."""

    key: str
    in_file: Value | None
    expected: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How one file compares with the file that its source gives.

    state      "identical"   every byte is the same
               "metadata"    the tensors are the same; keys, or other bytes around the tensors, differ
               "formats"     the tensors are the same, but no quant of ours has all their formats
               "differs"     tensors differ
               "unreadable"  it is no whole GGUF of such a model
               "missing"     it is listed and not here
    n_tensors  tensors of the file and of the source, those of both once
    fits       the quants whose formats it has
    tensors    differences by tensor, one line each; with "formats", differences from the nearest quant
    keys       keys that differ, where the tensors do not
    fault      says in one line what is wrong; None for "identical"
    imatrix    the importance matrix that its keys name, or None
    """

    file: str
    n_bytes: int
    state: str
    n_tensors: int = 0
    fits: tuple[Fit, ...] = ()
    tensors: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[KeyDifference, ...] = ()
    fault: str | None = None
    imatrix: str | None = None

    @property
    def derives(self) -> bool:
        """Whether every tensor derives from the source."""
        return self.state in ("identical", "metadata", "formats")


@checked
def verify_against(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    imatrix: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    ignore_missing: bool = False,
    progress: Progress | None = None,
) -> tuple[Comparison, ...]:
    """Compare a folder of GGUF files, or one file, byte for byte with the files that `quantize` makes from a source.

    source          as for `quantize`; weights of the Hub are read as they are needed, without a copy on disk
    imatrix         importance matrix of the files; files that name none are compared without it first
    threads         default one per CPU; no result depends on it
    ignore_missing  leave out files that are listed and not here
    progress        hears what is going on
    Raises          as `quantize` for the source and the matrix, as `verify` where there is nothing to compare; a fault
                    of a file is part of its comparison, so that one does not hide the next
    """
    n_threads = threads_of(threads)
    progress = progress or Silence()
    folder, names, _ = files_to_check(Path(path), ignore_missing=ignore_missing)
    # A key holds NAME, which the user may have chosen.
    told = (read_manifest(folder) or {}).get("name")
    own_name = told if isinstance(told, str) and is_legal(told) else None
    weighted = open_to_encode(source, name=own_name, imatrix=imatrix, progress=progress)
    plain = replace(weighted, imatrix=None)
    compared: dict[str, Comparison] = {}
    files: dict[str, GGUFFile] = {}
    for name in names:
        try:
            files[name], _ = open_gguf_model(folder / name)
        except (ModelFileError, StorageError) as e:
            compared[name] = _unreadable(folder / name, e)

    def compare(is_weighted: Mapping[str, bool]) -> Iterator[tuple[str, Comparison]]:
        for opened in (plain, weighted) if imatrix is not None else (plain,):
            group = {name: files[name] for name, wanted in is_weighted.items() if wanted == (opened is weighted)}
            if group:
                yield from _compare(opened, group, n_threads, progress).items()

    # 1. Compare each file as its keys say that it was made: with an importance matrix, or without.
    said = {name: imatrix is not None and _imatrix_of(gguf) is not None for name, gguf in files.items()}
    compared |= compare(said)
    # 2. Where tensors differ, the keys may be wrong: perhaps the file was made the other way.
    differing = [name for name in files if imatrix is not None and compared[name].state == "differs"]
    for name, other in compare({name: not said[name] for name in differing}):
        if len(other.tensors) < len(compared[name].tensors):
            compared[name] = other
    return tuple(compared[name] for name in names)


def _unreadable(path: Path, error: ModelFileError | StorageError) -> Comparison:
    if not os.path.exists(path):  # a link to nothing too
        return Comparison(file=path.name, n_bytes=0, state="missing", fault=f"{one_line(str(path))}: is missing")
    return Comparison(file=path.name, n_bytes=os.path.getsize(path), state="unreadable", fault=str(error))


def _imatrix_of(gguf: GGUFFile) -> str | None:
    """The importance matrix that the keys of a file name."""
    named = gguf.metadata.get("quantize.imatrix.file")
    return named if isinstance(named, str) else None


def _compare(source: Source, files: Mapping[str, GGUFFile], threads: int, progress: Progress) -> dict[str, Comparison]:
    """Compare files in one read of a source; returns the comparisons by name."""
    wanted: dict[str, set[str]] = {tensor.name: set() for tensor in source.tensors}
    with ExitStack() as stack:
        comparers = {}
        for name, gguf in files.items():
            comparers[name] = _Comparer(gguf, stack.enter_context(RegularFile(gguf.path)), source)
            for tensor in comparers[name].comparable:
                wanted[tensor].add(gguf.tensors[tensor].format)
        encode_tensors([c.take for c in comparers.values()], source, wanted, threads=threads, progress=progress)
        plans = _plans(source)
        return {name: _judged(comparer, source, plans) for name, comparer in comparers.items()}


class _Comparer:
    """Compares one file with slabs as they come.

    comparable  its tensors that the source has in the same shape, in a format that we can make
    differing   tensor -> the difference, in words
    padding     faults of the bytes between tensors
    """

    def __init__(self, gguf: GGUFFile, file: RegularFile, source: Source) -> None:
        self.gguf, self.file = gguf, file
        self.differing: dict[str, str] = {}
        self.padding: list[str] = []
        expected = {tensor.name: tensor for tensor in source.tensors}
        self.comparable = set()
        for name in dict.fromkeys([*expected, *gguf.tensors]):
            if why := _incomparable(gguf.tensors.get(name), expected.get(name)):
                self.differing[name] = why
            else:
                self.comparable.add(name)

    @property
    def n_tensors(self) -> int:
        """Number of tensors of the file or the source; those of both count once."""
        return len(self.comparable | self.differing.keys())

    def take(self, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        """Compare a slab; a tensor that differs already is read no further."""
        name = slab.tensor.name
        if name in self.differing:
            return
        info = self.gguf.tensors[name]
        data, start = encoded[info.format], slab.offset(info.format)
        place = self.gguf.data_offset + info.offset + start
        theirs = self.file.read(place, len(data))
        if theirs != data:
            is_other = np.frombuffer(theirs, np.uint8) != np.frombuffer(data, np.uint8)
            row = (start + int(is_other.argmax())) // info.row_bytes
            where = f"from row {row} on" if len(info.shape) > 1 else "in its values"
            self.differing[name] = f"{info.format} differs {where}"
        elif slab.is_last:
            n_zeros = padded(info.n_bytes, self.gguf.alignment) - info.n_bytes
            if any(self.file.read(place + len(data), n_zeros)):
                self.padding.append(f"the bytes after tensor {name} are not zeros")


def _incomparable(info: TensorInfo | None, expected: PressTensor | None) -> str | None:
    """Why a tensor of a file cannot be the source's, before any weight is read; None: it can."""
    if info is None:
        return "is missing"
    if expected is None:
        return "is not in the source"
    if info.shape != expected.shape:
        return f"has shape {list(info.shape)}, expected {list(expected.shape)}"
    # We round nothing to BF16: only tensors that are BF16 in the source can be BF16 in a file.
    if info.format not in (*ENCODABLE, "F32", "F16", expected.format):
        return f"is {info.format}, which is not made of {expected.format}"
    return None


def _judged(comparer: _Comparer, source: Source, plans: _Plans) -> Comparison:
    """The comparison of a file, once all its tensors were compared."""
    gguf, differing = comparer.gguf, comparer.differing
    fits = _fits(source, plans, gguf.formats)
    told = Comparison(
        file=gguf.path.name,
        n_bytes=gguf.n_bytes,
        state="identical",
        n_tensors=comparer.n_tensors,
        fits=tuple(fit for fit, _ in fits),
        imatrix=_imatrix_of(gguf),
    )
    if differing:
        return replace(told, state="differs", tensors=differing, fault=_differing_fault(comparer))
    if not fits:
        fit, other = _nearest(plans, gguf.formats)
        fault = f"no quant of ours has these formats together; nearest is {fit.quant} of mix {fit.mix}"
        return replace(told, state="formats", tensors=other, fault=fault)
    header = bytes(comparer.file.read(0, gguf.data_offset))
    same = [fit for fit, item in fits if item.header == header]
    if same and not comparer.padding:
        return replace(told, fits=tuple(same))
    # Among quants with these formats, take the one whose keys the file nearly has, or that it names.
    named = quant_of(gguf.metadata, gguf.formats)
    keys_of = {fit: _key_differences(gguf.metadata, item.metadata) for fit, item in fits}
    distance = {fit: (len(keys), fit.quant != named) for fit, keys in keys_of.items()}
    nearest = tuple(fit for fit in keys_of if distance[fit] == min(distance.values()))
    keys = keys_of[nearest[0]]
    n_keys = f"{len(keys)} {'key differs' if len(keys) == 1 else 'keys differ'}"
    fault = n_keys if keys else _header_fault(comparer, fits[0][1])
    return replace(told, state="metadata", fits=nearest, keys=keys, fault=fault)


def _differing_fault(comparer: _Comparer) -> str:
    """Say how many tensors differ; norms and biases, which no quant changes, tell another model from damage."""
    tensors = comparer.gguf.tensors
    vectors = [name for name, info in tensors.items() if len(info.shape) == 1]
    is_other = 2 * sum(name in comparer.differing for name in vectors) >= len(vectors)
    n = len(comparer.differing)
    of_all = f"{n} of {comparer.n_tensors} tensors {'differs' if n == 1 else 'differ'}"
    return f"{of_all}: the file is of another model or step" if is_other else of_all


def _header_fault(comparer: _Comparer, item: MenuItem) -> str:
    """The difference around the tensors of a file where every key and every tensor is the same."""
    gguf = comparer.gguf
    if gguf.version != VERSION:
        return f"is GGUF version {gguf.version}, expected {VERSION}"
    if list(gguf.metadata) != list(item.metadata):
        return "its keys are in another order"
    if list(gguf.tensors) != [info.name for info in item.infos]:
        return "its tensors are in another order"
    return next(iter(comparer.padding), "its header is written otherwise")


def _fits(source: Source, plans: _Plans, formats: Mapping[str, str]) -> list[tuple[Fit, MenuItem]]:
    """The quants that give every tensor these formats, each as the menu has it."""
    quants = [fit for fit, plan in plans if plan == formats]
    fits = [(fit, make_menu(source, [QUANTS[fit.quant]], fit.mix)[0]) for fit in quants]
    plain = plain_item(source)
    if {entry.tensor: entry.format for entry in plain.entries} == formats:
        fits.append((Fit(quant=plain.quant, mix="", has_imatrix=False), plain))
    return fits


def _plans(source: Source) -> _Plans:
    """Every quant of every mix, and the formats that it gives."""
    tensors, has_imatrix = source.tensors, source.imatrix is not None
    plans = []
    for mix, quant in itertools.product(MIXES, QUANTS.values()):
        if quant.alias_of is None:
            entries = make_plan(quant, mix, tensors, has_imatrix=has_imatrix).entries
            fit = Fit(quant=quant.name, mix=mix, has_imatrix=has_imatrix)
            plans.append((fit, {entry.tensor: entry.format for entry in entries}))
    return plans


def _nearest(plans: _Plans, formats: Mapping[str, str]) -> tuple[Fit, dict[str, str]]:
    """The quant with the most formats of a file, and how the others differ, by tensor."""
    fit, plan = max(plans, key=lambda pair: sum(formats[name] == of for name, of in pair[1].items()))
    return fit, {name: f"is {formats[name]}, expected {of}" for name, of in plan.items() if formats[name] != of}


def _key_differences(metadata: Metadata, expected: Metadata) -> tuple[KeyDifference, ...]:
    return tuple(
        KeyDifference(key=key, in_file=metadata.get(key), expected=expected.get(key))
        for key in dict.fromkeys([*metadata, *expected])
        if key not in metadata or key not in expected or value_bytes(metadata[key]) != value_bytes(expected[key])
    )
