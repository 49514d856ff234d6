"""What is in some data: documents, tokens, sources, lengths. It is read in pieces, whatever its size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.arguments import checked
from pythia_gguf.data.documents import Piece, check_names, documents_of, is_lines, read_pieces, size_of
from pythia_gguf.data.published import REPOSITORY_OF
from pythia_gguf.data.pulled import tokenizer_beside
from pythia_gguf.data.sources import Sources
from pythia_gguf.data.token_file import TokenFile, idx_path
from pythia_gguf.data.tokenizing import EOD, corpus_path, sources_path
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.json_file import read_json_object
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer

SCHEMA_VERSION = 1
_AT_ONCE = 1 << 22
# Broken lines that are told with their numbers; all are counted.
_MOST_TOLD = 20


class Lengths:
    """How long some things are: exact figures of any number of them, from how often each length comes."""

    def __init__(self) -> None:
        self._values, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, lengths: np.ndarray) -> None:
        """Take some more, integers [n]."""
        values, counts = np.unique(lengths, return_counts=True)
        both = np.concatenate([self._values, values.astype(np.int64)])
        self._values, places = np.unique(both, return_inverse=True)
        # Not bincount with weights, which are floats.
        total = np.zeros(len(self._values), np.int64)
        np.add.at(total, places, np.concatenate([self._counts, counts]))
        self._counts = total

    def summary(self) -> dict[str, float] | None:
        """Least, middle, mean and greatest length; None where there is none."""
        n = int(self._counts.sum())
        if not n:
            return None
        ends = np.cumsum(self._counts)
        middle = [int(self._values[np.searchsorted(ends, place, "right")]) for place in ((n - 1) // 2, n // 2)]
        total = sum(int(value) * int(count) for value, count in zip(self._values, self._counts, strict=True))
        return {
            "min": int(self._values[0]),
            "median": sum(middle) / 2,
            "mean": total / n,
            "max": int(self._values[-1]),
        }


@checked
def token_statistics(prefix: str | os.PathLike[str], *, progress: Progress | None = None) -> dict[str, Any]:
    """Figures of PREFIX.bin: of its documents, or of its rows where those are in the order of training.

    Raises StorageError, ModelFileError
    """
    progress = progress or Silence()
    if os.fspath(prefix) in REPOSITORY_OF and not idx_path(prefix).exists():
        raise UsageError(f"{os.fspath(prefix)} has 600 GB, on the Hub. Fetch some steps: pythia data pull")
    i_eod = _eod_of(prefix)
    lengths, n_eod = Lengths(), 0
    with TokenFile(prefix) as tokens:
        sizes = tokens.sizes()
        progress.stage("counting", tokens.n_tokens, "tokens")
        for start, n in _spans(tokens.n_tokens):
            n_eod += 0 if i_eod is None else int(np.count_nonzero(tokens.slice(start, n) == i_eod))
            progress.advance(f"{tokens.prefix.name}.bin", n)
        for start, n in _spans(len(sizes)):
            lengths.add(sizes[start : start + n])
        return {
            "kind": "documents" if tokens.starts == tokens.n_sequences + 1 else "rows",
            "n": tokens.n_sequences,
            "n_tokens": tokens.n_tokens,
            "n_bytes": tokens.n_tokens * tokens.dtype.itemsize,
            "eod_id": i_eod,
            "n_eod": None if i_eod is None else n_eod,
            "tokens": lengths.summary(),
            "sources": _by_source(prefix, sizes),
        }


@checked
def text_statistics(corpus: Sequence[str | os.PathLike[str]], *, progress: Progress | None = None) -> dict[str, Any]:
    """Figures of documents in lines of JSON and in texts, each compressed or not.

    Raises UsageError, StorageError; ModelFileError for a file that is damaged as a whole
    """
    paths, progress = [Path(path) for path in corpus], progress or Silence()
    check_names(paths)
    sizes = [size_of(path) for path in paths]
    progress.stage("reading", sum(sizes), "bytes")
    counter = _TextCounter()
    for path in paths:
        for piece in read_pieces(path):
            counter.take(path, piece)
            progress.advance(path.name, piece.n_read)
    return counter.told()


class _TextCounter:
    """Figures of the documents that it has been given."""

    def __init__(self) -> None:
        self._lengths, self._n_empty, self._n_broken = Lengths(), 0, 0
        self._broken: list[dict[str, Any]] = []
        # Name -> [documents, bytes].
        self._sources: dict[str, list[int]] = {}

    def take(self, path: Path, piece: Piece) -> None:
        documents, broken = documents_of(piece, is_json=is_lines(path))
        self._n_broken += len(broken)
        for number, why in broken[: max(0, _MOST_TOLD - len(self._broken))]:
            self._broken.append({"file": path.name, "line": number, "why": why})
        found = [len(document.text.encode()) for _, document in documents]
        for size, (_, document) in zip(found, documents, strict=True):
            counts = self._sources.setdefault(document.source, [0, 0])
            counts[0] += 1
            counts[1] += size
        self._n_empty += found.count(0)
        self._lengths.add(np.array(found, np.int64))

    def told(self) -> dict[str, Any]:
        sources = [{"name": name, "n": n, "n_bytes": size} for name, (n, size) in sorted(self._sources.items())]
        return {
            "kind": "texts",
            "n": sum(source["n"] for source in sources),
            "n_bytes": sum(source["n_bytes"] for source in sources),
            "n_empty": self._n_empty,
            "n_broken": self._n_broken,
            "broken": self._broken,
            "bytes": self._lengths.summary(),
            "sources": sources,
        }


def _by_source(prefix: str | os.PathLike[str], sizes: np.ndarray) -> list[dict[str, Any]]:
    """Documents and tokens of each source; nothing where sources were not kept."""
    sources = Sources(prefix)
    try:
        if not sources.n_documents:
            return []
        if sources.n_documents != len(sizes):
            message = f"has sources of {sources.n_documents} documents, expected {len(sizes)}"
            raise ModelFileError(message, path=sources_path(prefix))
        counts, totals = np.zeros((2, len(sources.names)), np.int64)
        for start, n in _spans(len(sizes)):
            places = sources.read(start, start + n)
            np.add.at(counts, places, 1)
            np.add.at(totals, places, sizes[start : start + n])
    finally:
        sources.close()
    rows = zip(sources.names, counts.tolist(), totals.tolist(), strict=True)
    return [{"name": name, "n": n, "n_tokens": total} for name, n, total in sorted(rows)]


def _eod_of(prefix: str | os.PathLike[str]) -> int | None:
    """The id that ends documents: None where the tokenizer has none, 0 as in GPT-NeoX-20B's where none is kept."""
    beside, eod = tokenizer_beside(prefix), EOD
    if not beside.is_file():
        return 0
    if corpus_path(prefix).is_file():
        eod = read_json_object(corpus_path(prefix), {"eod": str}, what="an account of a corpus")["eod"]
    i_eod: int | None = load_tokenizer(beside).token_to_id(eod)
    return i_eod


def _spans(n: int) -> Iterator[tuple[int, int]]:
    """(first, how many) of so many entries."""
    for first in range(0, n, _AT_ONCE):
        yield first, min(_AT_ONCE, n - first)
