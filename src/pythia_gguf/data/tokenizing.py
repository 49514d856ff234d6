"""Documents to PREFIX.bin and PREFIX.idx: ids of each text, then the one that ends a document.

    PREFIX.bin, PREFIX.idx   the ids, as GPT-NeoX reads them
    PREFIX.tokenizer.json    what made them
    PREFIX.sources.npy       u16 [documents], where each comes from: a place in the list of
    PREFIX.corpus.json       files, sources with their documents and tokens, lines that were left out

Processes get pieces of the files in turn, and results are put together in the order of the files, so no byte depends on
how many there are. A run that was ended goes on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pythia_gguf.arguments import checked, one_of
from pythia_gguf.data.array_file import write_array
from pythia_gguf.data.documents import (
    BROKEN,
    Piece,
    Place,
    broken_line,
    check_names,
    documents_of,
    is_lines,
    n_before,
    read_pieces,
    size_of,
)
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.processes import Workers, process_count
from pythia_gguf.data.pulled import tokenizer_beside
from pythia_gguf.data.text import open_tokenizer
from pythia_gguf.data.token_file import TokenFile, bin_path, idx_path, write_idx
from pythia_gguf.errors import Argument, ModelFileError, UsageError
from pythia_gguf.files import check_file_place, read_whole, write_all, write_beside, write_text
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.progress import Progress, Silence

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCHEMA_VERSION = 1
EOD = "<|endoftext|>"
_NAMES = ("tokens", "sizes", "sources")
# Bytes of ids after which the work is saved.
_SAVE_BYTES = 64 << 20
_SHAPE = {
    "inputs": [dict],
    "tokenizer_sha256": str,
    "eod": str,
    "broken_lines": str,
    "n_documents": int,
    "n_tokens": int,
    "n_empty": int,
    "sources": [{"name": str, "documents": int, "tokens": int}],
    "left_out": [{"file": str, "line": int, "why": str}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPiece:
    """What a process makes of a piece.

    ids      bytes of u16
    sizes    of each document, in tokens
    sources  of each document
    broken   (number of the line, what is wrong with it)
    n_empty  documents without text, which give no ids
    """

    ids: bytes
    sizes: list[int]
    sources: list[str]
    broken: list[tuple[int, str]]
    n_empty: int


class PieceEncoder:
    """Makes ids of pieces, in the process that has it."""

    def __init__(self, tokenizer: Tokenizer, eod: str) -> None:
        """Take a tokenizer; raises UsageError where its ids are too large, or no token ends a document."""
        self._tokenizer = tokenizer
        n = tokenizer.get_vocab_size()
        if n > 1 << 16:
            raise UsageError(Argument("tokenizer"), f" has {n} tokens, whose ids do not fit into two bytes")
        self._eod = tokenizer.token_to_id(eod)
        if self._eod is None:
            raise UsageError(Argument("eod"), f": the tokenizer has no token {eod!r}")

    def encode(self, piece: Piece, is_json: bool) -> EncodedPiece:
        """The documents of a piece."""
        documents, broken = documents_of(piece, is_json=is_json)
        with_text = [document for _, document in documents if document.text]
        encoded = self._tokenizer.encode_batch_fast([d.text for d in with_text], add_special_tokens=False)
        ids = [[*each.ids, self._eod] for each in encoded]
        return EncodedPiece(
            ids=b"".join(np.array(each, "<u2").tobytes() for each in ids),
            sizes=[len(each) for each in ids],
            sources=[document.source for document in with_text],
            broken=broken,
            n_empty=len(documents) - len(with_text),
        )


@checked
def tokenize(
    corpus: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str],
    eod: str = EOD,
    broken: str = "stop",
    processes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make PREFIX.bin and PREFIX.idx of the documents in some files.

    tokenizer  a tokenizer.json, a GGUF, a folder that holds one of them, or a model of the Hub
    eod        the token that ends every document
    broken     what a line does that is no document: "stop" the run, or be left out ("skip")
    processes  default one per CPU; no byte depends on it
    force      replace other tokens of that prefix
    Returns    what PREFIX.corpus.json says
    Raises     UsageError, StorageError, LockedError; ModelFileError for damaged files and, with "stop", a broken line
    """
    one_of("broken", broken, BROKEN)
    n_processes = process_count(processes)
    paths, prefix = [Path(path) for path in corpus], Path(out)
    check_names(paths)
    progress = progress or Silence()
    opened = open_tokenizer(tokenizer, progress)
    encoder = PieceEncoder(opened.library, eod)
    inputs = [{"file": path.name, "bytes": size_of(path)} for path in paths]
    for path in (bin_path(prefix), idx_path(prefix), corpus_path(prefix)):
        check_file_place(path)
    facts = {
        "inputs": inputs,
        "tokenizer_sha256": hashlib.sha256(opened.json).hexdigest(),
        "eod": eod,
        "broken_lines": broken,
    }
    if bin_path(prefix).exists() and not force:
        return _already(prefix, facts)
    plan = facts | {"times": [path.stat().st_mtime_ns for path in paths]}
    with GrowingFiles(prefix, _NAMES, plan) as files, Workers(n_processes, encoder) as workers:
        run = _Run(files, paths, progress)
        run.encode_all(workers, skip=broken == "skip")
        told = {"schema_version": SCHEMA_VERSION} | facts | run.summary()
        if not run.n_documents:
            raise UsageError(Argument("corpus"), " holds no document")
        # The ids come last: until they are in place, running again finishes this, whatever else is there.
        bin_path(prefix).unlink(missing_ok=True)
        write_idx(idx_path(prefix), np.frombuffer(read_whole(files.folder / "sizes"), "<i4"))
        write_array(sources_path(prefix), np.frombuffer(read_whole(files.folder / "sources"), "<u2"))
        with write_beside(tokenizer_beside(prefix)) as file:
            write_all(file, opened.json)
        write_text(corpus_path(prefix), json_text(told))
        files.move("tokens", bin_path(prefix))
        files.remove()
    return told


class _Run:
    """Where a run is: its position is saved with the files, and taken up from there."""

    def __init__(self, files: GrowingFiles, paths: list[Path], progress: Progress) -> None:
        self._files, self._paths, self._progress = files, paths, progress
        at = files.position or {"file": 0, "place": asdict(Place()), "empty": 0, "broken": [], "sources": []}
        self._at = at
        # Name -> [place in the list, documents, tokens].
        self._sources = {name: [i, n, tokens] for i, (name, n, tokens) in enumerate(at["sources"])}

    @property
    def n_documents(self) -> int:
        return sum(n for _, n, _ in self._sources.values())

    def encode_all(self, workers: Workers, *, skip: bool) -> None:
        """Have every piece encoded that is not yet, several at a time, and append what comes in order."""
        sizes = [size_of(path) for path in self._paths]
        self._progress.stage("tokenizing", sum(sizes), "bytes")
        start = self._at["file"]
        there = sum(sizes[:start])
        if start < len(sizes):
            there += n_before(self._paths[start], Place.restored(self._at["place"]))
        self._progress.advance("there already", there)
        unsaved = 0
        items = (((i, piece), (piece, is_lines(self._paths[i]))) for i, piece in self._pieces())
        for (i, piece), encoded in workers.each("encode", items):
            unsaved += self._take(i, piece, encoded, skip=skip)
            if unsaved > _SAVE_BYTES:
                self._save()
                unsaved = 0
        self._at |= {"file": len(self._paths), "place": asdict(Place())}
        self._save()

    def summary(self) -> dict[str, Any]:
        """For PREFIX.corpus.json."""
        sources = [{"name": name, "documents": n, "tokens": tokens} for name, (_, n, tokens) in self._sources.items()]
        broken = [{"file": self._paths[i].name, "line": line, "why": why} for i, line, why in self._at["broken"]]
        counts = {"n_documents": self.n_documents, "n_tokens": sum(t for _, _, t in self._sources.values())}
        return counts | {"n_empty": self._at["empty"], "sources": sources, "left_out": broken}

    def _pieces(self) -> Iterator[tuple[int, Piece]]:
        for i in range(self._at["file"], len(self._paths)):
            start = Place.restored(self._at["place"]) if i == self._at["file"] else Place()
            yield from ((i, piece) for piece in read_pieces(self._paths[i], start))

    def _take(self, i: int, piece: Piece, encoded: EncodedPiece, *, skip: bool) -> int:
        """Append a piece; returns the bytes of its ids."""
        if encoded.broken and not skip:
            raise broken_line(self._paths[i], encoded.broken)
        for name, size in zip(encoded.sources, encoded.sizes, strict=True):
            counts = self._sources.setdefault(name, [len(self._sources), 0, 0])
            counts[1] += 1
            counts[2] += size
        if len(self._sources) > 1 << 16:
            raise ModelFileError("documents of more than 65,536 sources", path=self._paths[i])
        self._files.append("tokens", encoded.ids)
        self._files.append("sizes", np.array(encoded.sizes, "<i4").tobytes())
        self._files.append("sources", np.array([self._sources[name][0] for name in encoded.sources], "<u2").tobytes())
        self._at |= {"file": i, "place": asdict(piece.end), "empty": self._at["empty"] + encoded.n_empty}
        self._at["broken"] += [[i, line, why] for line, why in encoded.broken]
        self._progress.advance(self._paths[i].name, piece.n_read)
        return len(encoded.ids)

    def _save(self) -> None:
        self._at["sources"] = [[name, n, tokens] for name, (_, n, tokens) in self._sources.items()]
        self._files.save(self._at)


def corpus_path(prefix: str | os.PathLike[str]) -> Path:
    """The file that says what PREFIX.bin was made of."""
    return Path(f"{os.fspath(prefix)}.corpus.json")


def sources_path(prefix: str | os.PathLike[str]) -> Path:
    """The file that says where each document comes from."""
    return Path(f"{os.fspath(prefix)}.sources.npy")


def _already(prefix: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run noted of the same files; raises UsageError where other tokens would be replaced."""
    if corpus_path(prefix).is_file():
        told = read_json_object(corpus_path(prefix), _SHAPE, what="an account of a corpus")
        if facts == {key: told[key] for key in facts}:
            with TokenFile(prefix) as tokens:
                if (tokens.n_sequences, tokens.n_tokens) == (told["n_documents"], told["n_tokens"]):
                    return told
    way_out = (Argument("out"), ", or use ", Argument("force", True))
    raise UsageError(f"{bin_path(prefix)}: other tokens are there. Choose another ", *way_out)
