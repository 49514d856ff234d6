"""A checkpoint or an unquantized GGUF in the form that the press needs: GGUF tensors whose rows it reads as float32."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.arch import ARCHITECTURES, Architecture, ModelConfig, RowRuns
from pythia_gguf.arch.activation import act_beside
from pythia_gguf.checkpoint.checkpoint import Checkpoint, open_checkpoint
from pythia_gguf.checkpoint.gathered import as_plain
from pythia_gguf.checkpoint.neox import NeoXCheckpoint, neox_folder, open_neox
from pythia_gguf.checkpoint.tensor import LazyTensor
from pythia_gguf.errors import Argument, ModelFileError, StorageError, UsageError, one_line
from pythia_gguf.files import FileElsewhere
from pythia_gguf.gguf.container import Metadata
from pythia_gguf.gguf.imatrix import ImportanceMatrix, read_imatrix
from pythia_gguf.gguf.writer import KeyBytes
from pythia_gguf.hub.pull import NamedSource
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.intake.mistaken import (
    ADAPTER,
    holds_weights,
    refuse_half_weights,
    refuse_other_file,
    refuse_other_folder,
    refuse_other_tensor,
)
from pythia_gguf.json_file import read_text
from pythia_gguf.plan.planner import SourceTensor
from pythia_gguf.press.conversion import matrix_format, read_hf_model, stored_format, text_files
from pythia_gguf.press.file_names import repo_of, snapshot_of
from pythia_gguf.tokenizer import MANIFEST_KEY, tokens_beside, try_tokenizer

UNQUANTIZED = ("F16", "BF16", "F32")
_MOST_NAMED = 5
_ADAPTER_NOTE = f"{ADAPTER} was left out: the weights beside it are a whole model"


@dataclass(frozen=True, slots=True, kw_only=True)
class PressTensor(SourceTensor):
    """One tensor of the future GGUF, and the place of its values.

    format       its format in the unquantized GGUF: F16, BF16 or F32
    stored       its format in the source file: F16, BF16 or F32
    path, offset the source file and the position of the first value
    runs         row order, as (first row here, first row in the source, rows); None when it is the same
    source_name  its name in the source, for messages
    """

    stored: str
    path: Path
    offset: int
    runs: RowRuns | None
    source_name: str

    @property
    def n_rows(self) -> int:
        """Number of rows; each value of a vector is a row."""
        return self.shape[0]

    @property
    def n_columns(self) -> int:
        """Weights in a row."""
        return self.shape[1] if len(self.shape) == 2 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedMatrix:
    """An importance matrix and the file that it was read from, as given."""

    path: Path
    matrix: ImportanceMatrix

    def of(self, tensor: PressTensor) -> np.ndarray | None:
        """Importances of a tensor's columns, f32 [n_columns]; None where the matrix has no entry.

        Raises UsageError for an entry of another length; for the embeddings such an entry is ignored, as in llama.cpp.
        """
        entry = self.matrix.entries.get(tensor.name)
        if entry is None or (entry.sums.size != tensor.n_columns and tensor.role == "token_embd"):
            return None
        if entry.sums.size != tensor.n_columns:
            raise UsageError(
                f"{one_line(str(self.path))}: is of another model: {entry.sums.size} values for the"
                f" {tensor.n_columns} columns of {tensor.name}"
            )
        return entry.means


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model that the press can read.

    path          as given
    kind          "safetensors", "torch", "neox" or "gguf"
    architecture  the model's
    name          NAME of the files
    metadata      keys of the unquantized GGUF, in order
    tensors       in the order of a quantized file
    file_order    names in the order of the unquantized file
    files         every file that determines the result
    readme        text of the original model card, or None
    repo_id       "EleutherAI/pythia-70m" when the source lies in a Hub cache, else None
    commit        the commit of that cache entry, or None
    revision      the branch that was asked for by name, or None
    hidden_act    the activation as config.json names it, for which a GGUF has no key; None: not known
    special_tokens  facts about special tokens that no key holds; see `tokenizer.special_tokens`
    elsewhere     files that are not on this machine, by path
    imatrix       importances of columns, or None
    copies        tensors that are a copy of another, and that other, by name: the matrix of tied embeddings
    notes         notes for the user, one line each
    keys_made     bytes that keys have in headers
    """

    path: Path
    kind: str
    architecture: Architecture
    name: str
    metadata: Metadata
    tensors: tuple[PressTensor, ...]
    file_order: tuple[str, ...]
    files: tuple[Path, ...]
    readme: str | None = None
    repo_id: str | None = None
    commit: str | None = None
    revision: str | None = None
    hidden_act: str | None = None
    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[Path, FileElsewhere] = field(default_factory=dict)
    imatrix: UsedMatrix | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keys_made: KeyBytes = field(default_factory=KeyBytes)

    @property
    def n_weights(self) -> int:
        """Parameters of the model."""
        return sum(t.n_rows * t.n_columns for t in self.tensors)

    @property
    def beside(self) -> dict[str, Any]:
        """Facts for manifest.json beside a GGUF of it, because a GGUF has no key for them."""
        act = {} if self.hidden_act is None else {"hidden_act": self.hidden_act}
        return act | ({MANIFEST_KEY: dict(self.special_tokens)} if self.special_tokens else {})

    def refuse_folder(self, folder: Path) -> None:
        """Raises UsageError for a folder that is a model's own: readers would take our card for the model's."""
        files = () if self.kind == "gguf" else (self.path / "config.json", *self.files)
        homes = {home for file in files for home in (file.parent, file.resolve().parent) if home.is_dir()}
        if holds_weights(folder) or (folder.is_dir() and any(map(folder.samefile, homes))):
            raise UsageError(
                f"{one_line(str(folder))}: a model lies here, and the card of the files would be taken for its own",
                (". Choose another ", Argument("out")),
            )

    def refuse_files(self, paths: Iterable[Path]) -> None:
        """Raises UsageError where one of the files to write is a file of the source."""
        for path in paths:
            if any(path.exists() and file.exists() and file.samefile(path) for file in self.files):
                raise UsageError(
                    f"{one_line(str(path))}: is what it would be made from", (". Choose another ", Argument("out"))
                )


def with_imatrix(source: Source, path: Path) -> Source:
    """A source with an importance matrix; raises ModelFileError, and UsageError when it is of another model."""
    used = UsedMatrix(path=path, matrix=read_imatrix(path))
    if sum(used.of(tensor) is not None for tensor in source.tensors) == 0:
        raise UsageError(f"{one_line(str(path))}: no entry is for a weight of this model: is it of another one?")
    return replace(source, imatrix=used)


def open_source(path: Path, name: str, place: NamedSource | None = None) -> Source:
    """Open a Hugging Face folder or an unquantized GGUF; headers only, no weights.

    place  where the path comes from, when it was given by a name of the Hub
    Raises ModelFileError for a model that cannot be pressed, StorageError when nothing is there.
    """
    # os.path says no where Path raises: for a name that is too long, in a folder that may not be searched.
    if os.path.isdir(path):
        return _open_folder(path, name, place)
    shown = one_line(str(path))
    if not os.path.exists(path):
        raise StorageError(f"{shown}: no such file or folder. Give a Hugging Face folder or an F16, BF16 or F32 .gguf")
    if path.suffix.lower() != ".gguf":
        refuse_other_file(path)
        raise UsageError(f"{shown}: expected a Hugging Face folder or a .gguf file")
    return _open_gguf(path, name)


def _open_gguf(path: Path, name: str) -> Source:
    gguf, config = open_gguf_model(path)
    architecture = ARCHITECTURES[config.architecture]
    tensors = []
    for tensor_name, shape in architecture.tensor_shapes(config).items():
        info = gguf.tensors[tensor_name]
        if info.format not in UNQUANTIZED:
            raise ModelFileError(
                f"is already quantized ({info.format}): quantizing again would lose quality."
                " Give the F16, BF16 or F32 file, or the original checkpoint",
                path=path,
                field=f"tensor {tensor_name}",
            )
        tensors.append(
            PressTensor(
                name=tensor_name,
                shape=shape,
                role=architecture.role_of(tensor_name),
                layer=architecture.layer_of(tensor_name),
                format=info.format,
                stored=info.format,
                path=path,
                offset=gguf.data_offset + info.offset,
                runs=None,
                source_name=tensor_name,
            )
        )
    return Source(
        path=path,
        kind="gguf",
        architecture=architecture,
        name=name,
        metadata=gguf.metadata,
        tensors=tuple(tensors),
        file_order=tuple(gguf.tensors),
        files=(path,),
        hidden_act=act_beside(path),
        special_tokens=tokens_beside(gguf.metadata, path),
        notes=try_tokenizer(gguf.metadata, path)[1],
    )


def _open_folder(folder: Path, name: str, place: NamedSource | None) -> Source:
    named = place.elsewhere if place else {}
    neox = None if holds_weights(folder, named) else neox_folder(folder)
    if neox is None:
        refuse_other_folder(folder, named)
    if neox is not None and not os.path.lexists(folder / "config.json"):
        raise StorageError(
            f"{one_line(str(folder))}: a checkpoint of GPT-NeoX. Put the model's config.json and tokenizer.json into it"
        )
    model = read_hf_model(folder, name=name)
    checkpoint: Checkpoint | NeoXCheckpoint
    if neox is None:
        checkpoint = open_checkpoint(folder, named)
        kind, elsewhere = checkpoint.kind, {folder / file: how for file, how in named.items()}
    else:
        checkpoint = open_neox(neox)
        kind, elsewhere = "neox", dict(checkpoint.elsewhere)
    notes = [*model.notes, *([_ADAPTER_NOTE] if os.path.lexists(folder / ADAPTER) else [])]
    architecture = ARCHITECTURES[model.config.architecture]
    found, strangers = _by_gguf_names(checkpoint.tensors.values(), architecture, model.config)
    notes += _left_out_notes(strangers, {} if isinstance(checkpoint, NeoXCheckpoint) else checkpoint.left_out)
    found, copies = _with_both_embeddings(found, architecture, model.config, folder, notes)
    for tensor in found.values():
        _check_stored(tensor)
    architecture.check_shapes({n: t.shape for n, t in found.items()}, model.config, folder)
    found, gathered = as_plain(found, elsewhere)
    matrices = matrix_format((t.dtype, t.shape) for t in checkpoint.tensors.values())
    readme = folder / "README.md"
    return Source(
        path=folder,
        kind=kind,
        architecture=architecture,
        name=name,
        metadata=model.metadata,
        tensors=_press_tensors(found, architecture, model.config, matrices),
        file_order=tuple(found),
        files=(*checkpoint.files, *text_files(folder)),
        readme=read_text(readme) if readme.is_file() else None,
        repo_id=repo_of(folder),
        commit=snapshot.name if (snapshot := snapshot_of(folder)) else None,
        revision=place.revision if place else None,
        hidden_act=model.config.hidden_act,
        special_tokens=model.special_tokens,
        elsewhere=elsewhere | gathered,
        copies=copies,
        notes=tuple(notes),
    )


def _press_tensors(
    found: Mapping[str, LazyTensor], architecture: Architecture, config: ModelConfig, matrices: str
) -> tuple[PressTensor, ...]:
    """The tensors of a checkpoint by their GGUF names; `matrices` is the format that matrices get."""
    row_runs = architecture.row_runs(config)
    return tuple(
        PressTensor(
            name=name,
            shape=shape,
            role=architecture.role_of(name),
            layer=architecture.layer_of(name),
            format=stored_format(shape, matrices),
            stored=found[name].dtype,
            path=found[name].path,
            offset=found[name].offset,
            runs=row_runs.get(architecture.role_of(name)),
            source_name=found[name].name,
        )
        for name, shape in architecture.tensor_shapes(config).items()
    )


def _by_gguf_names(
    tensors: Iterable[LazyTensor], architecture: Architecture, config: ModelConfig
) -> tuple[dict[str, LazyTensor], dict[str, ModelFileError]]:
    """The tensors of the model, in their order, and other tensors by their own names, each with its fault.

    Others are left out, as in transformers, unless tensors of the model are missing: then they may show why.
    """
    expected = architecture.tensor_shapes(config)
    found: dict[str, LazyTensor] = {}
    strangers: dict[str, ModelFileError] = {}
    for tensor in tensors:
        refuse_half_weights(tensor.name, tensor.path)
        try:
            refuse_other_tensor(tensor.name, tensor.path)
            name = architecture.gguf_name(tensor.name, path=tensor.path)
        except ModelFileError as e:
            strangers[tensor.name] = e
            continue
        if name is None:
            continue
        if name not in expected:
            strangers[tensor.name] = ModelFileError(
                "is of a layer that config.json does not count", path=tensor.path, field=f"tensor {tensor.name}"
            )
        elif name in found:
            raise ModelFileError(f"is the same as {found[name].name}", path=tensor.path, field=f"tensor {tensor.name}")
        else:
            found[name] = tensor
    missing = [
        name
        for name in expected
        if name not in found and not (config.tied_embeddings and name in architecture.embeddings)
    ]
    if strangers and missing:
        raise next(iter(strangers.values()))
    return found, strangers


def _left_out_notes(strangers: Collection[str], entries: Mapping[str, str]) -> list[str]:
    """Notes on tensors that the model does not have, and on entries beside the tensors."""
    notes = []
    if strangers:
        names = ", ".join(one_line(name, 100) for name in list(strangers)[:_MOST_NAMED])
        notes.append(f"left out, as transformers does: {len(strangers)} tensors that the model does not have ({names})")
    if entries:
        kinds = ", ".join(f"{one_line(name, 60)} ({kind})" for name, kind in list(entries.items())[:_MOST_NAMED])
        notes.append(f"left out: {len(entries)} entries that are no tensors: {kinds}")
    return notes


def _with_both_embeddings(
    found: dict[str, LazyTensor],
    architecture: Architecture,
    config: ModelConfig,
    folder: Path,
    notes: list[str],
) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors with the matrix that tied embeddings lack, right after the other one; and copy -> original.

    A GGUF of this architecture has both matrices. If a checkpoint has both, they count as two, even where config.json
    ties them: transformers 5 does so, while transformers 4 then uses the embeddings for both.
    """
    is_tied = config.tied_embeddings
    there = [name for name in architecture.embeddings if name in found]
    missing = [name for name in architecture.embeddings if name not in found]
    if len(there) == 1 and not is_tied:
        raise ModelFileError(
            'tensor is missing. Where embeddings are tied, config.json must say it: "tie_word_embeddings": true',
            path=folder,
            field=f"tensor {missing[0]}",
        )
    if len(there) == 1:
        notes.append(f"the embeddings are tied: {missing[0]} is a copy of {there[0]}, as a GGUF needs both")
        pairs = [(n, t) for name, t in found.items() for n in ((name, *missing) if name in there else (name,))]
        return dict(pairs), {missing[0]: there[0]}
    if is_tied and not missing and len({(found[name].path, found[name].offset) for name in there}) == 2:
        notes.append(
            f"config.json ties the embeddings, but the weights hold {found[there[1]].name} too: it is used, as"
            " in transformers 5; transformers 4 would use the embeddings in its place"
        )
    return found, {}


def _check_stored(tensor: LazyTensor) -> None:
    if tensor.dtype not in (*UNQUANTIZED, "F64"):
        raise ModelFileError(
            f"type {tensor.dtype} is not supported: expected {', '.join(UNQUANTIZED)} or F64. Load the model with"
            " transformers and save it in one of them",
            path=tensor.path,
            field=f"tensor {tensor.name}",
        )
