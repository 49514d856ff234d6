"""Texts about a run: the facts of the card, the command that makes the files again, notes.

Texts for other readers hold names of files and of the Hub, and no path of this machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from pythia_gguf.card.card import CardRun, CardSource, write_card
from pythia_gguf.card.listing import CardFile
from pythia_gguf.card.original import take_apart
from pythia_gguf.errors import one_line
from pythia_gguf.gguf.fingerprint import fingerprint, vectors_of
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.press.file_names import legal_name
from pythia_gguf.press.find_source import SourceLocation
from pythia_gguf.press.menu import MIX_NOTE, MenuItem
from pythia_gguf.press.source import Source
from pythia_gguf.press.source_hashes import SourceFile


def card_text(source: Source, files: Sequence[CardFile], sources: Sequence[SourceFile], run: CardRun) -> str:
    """The README.md of a folder with these files, which were made from these sources."""
    origin = CardSource(
        name=source.name,
        kind=source.architecture.hf_type,
        repo_id=source.repo_id,
        revision=source.revision,
        commit=source.commit,
        files=tuple((f.name, f.n_bytes, f.sha256) for f in sources),
        readme=source.readme,
    )
    return write_card(files, origin, run)


def card_files(items: Sequence[MenuItem], sums: Mapping[str, str]) -> tuple[CardFile, ...]:
    """The rows of the card's table of files; `sums` are the hashes by file name."""
    return tuple(
        CardFile(
            name=i.file,
            quant=i.quant,
            n_bytes=i.n_bytes,
            bits_per_weight=i.bits_per_weight,
            sha256=sums[i.file],
            alias_of=i.alias_of,
        )
        for i in items
    )


def command_text(found: SourceLocation, source: Source, items: Sequence[MenuItem], mix: str) -> str:
    """The command with which a reader makes the same files, given the model and the importance matrix."""
    if found.model is not None:
        model, own_name = str(found.model), found.name
    elif source.repo_id is not None:
        model, own_name = f"{source.repo_id}@{source.commit}", ""
    elif source.kind == "gguf":
        model, own_name = source.path.name, found.name
    else:
        model, own_name = source.name, source.name
    words = ["pythia", "quantize", model, *(["--name", source.name] if legal_name(own_name) != source.name else [])]
    quants, more = words_for([item.quant for item in items])
    words += ["--quants", quants, "--mix", mix]
    if source.imatrix is not None:
        words += ["--imatrix", source.imatrix.path.name]
    return shlex.join([*words, *more])


def words_for(quants: Sequence[str]) -> tuple[str, list[str]]:
    """The words by which a command names some files: the value of --quants, and the words at its end."""
    ours = [quant for quant in quants if quant in QUANTS]
    more = ["--keep-f16"] if len(ours) < len(quants) else []
    return "all" if len(ours) == len(QUANTS) else ",".join(ours), more


def imatrix_text(source: Source) -> str | None:
    """The importance matrix in the card: names of files without folders, on whatever system it was made."""
    if source.imatrix is None:
        return None
    matrix = source.imatrix.matrix
    texts = ", ".join(PureWindowsPath(dataset).name for dataset in matrix.datasets)
    n_tokens = f" of {matrix.chunk_tokens} tokens" if matrix.chunk_tokens else ""
    pieces = f", {matrix.n_chunks} pieces{n_tokens}" if matrix.n_chunks else ""
    return f"{source.imatrix.path.name}" + (f" (computed on {texts}{pieces})" if texts else "")


def other_model_note(source: Source, made: Path) -> tuple[str, ...]:
    """The note for a file that was made with an importance matrix of another model, by what the matrix says."""
    runs = () if source.imatrix is None else source.imatrix.matrix.runs
    if not runs:
        return ()
    own = fingerprint(vectors_of(open_gguf(made)))
    others = ", ".join(dict.fromkeys(one_line(run.file, 100) for run in runs if run.model != own))
    if not others:
        return ()
    return (f"the importance matrix was collected of another model, {others}: its norms and biases are others",)


def notes_of(source: Source, items: Sequence[MenuItem], mix: str) -> tuple[str, ...]:
    """Notes for the user of a run, one line each."""
    notes = []
    if source.imatrix is not None and len(source.imatrix.path.parts) > 1:
        notes.append(
            f"the files hold the path {source.imatrix.path} of the importance matrix, as llama.cpp's would. Before you"
            " publish them, make them where it is, with its file name alone"
        )
    if source.readme is not None and (left_out := take_apart(source.readme).left_out):
        notes.append(f"left out of the card, as the Hub would refuse it: {one_line('; '.join(left_out))}")
    if mix == "2026" and any(i.quant in ("Q2_K", "Q3_K_L") for i in items):
        notes.append(MIX_NOTE)
    fallen = {e.tensor: e.reason for i in items for e in i.entries if e.reason.startswith("row of")}
    if fallen:
        notes.append(
            f"{len(fallen)} tensors have rows that are not whole blocks and get a format with smaller blocks, as in"
            f" llama.cpp; e.g. {next(iter(fallen))}: {next(iter(fallen.values()))}"
        )
    return tuple(notes)
