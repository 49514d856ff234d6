"""Figures are those that plain Python counts, of any pieces; sources and broken lines are told."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.neox import write_corpus
from pythia_gguf.data import documents as reading
from pythia_gguf.data import statistics as counting
from pythia_gguf.data.array_file import write_array
from pythia_gguf.data.statistics import Lengths, text_statistics, token_statistics
from pythia_gguf.data.token_file import write_idx
from pythia_gguf.data.tokenizing import tokenize
from pythia_gguf.errors import ModelFileError, StorageError, UsageError

from .test_tokenizing import BAD, EOD, TOKENIZER, corpus_files, expected_ids, lines_of, texts


def figures(lengths: list[int]) -> dict[str, float]:
    middle, mean = statistics.median(lengths), statistics.fmean(lengths)
    return {"min": min(lengths), "median": middle, "mean": pytest.approx(mean, rel=1e-12), "max": max(lengths)}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**40) | st.integers(0, 3), max_size=6), max_size=6))
def test_lengths_in_any_pieces(pieces: list[list[int]]):
    lengths, flat = Lengths(), [n for piece in pieces for n in piece]
    for piece in pieces:
        lengths.add(np.array(piece, np.int64))
    assert lengths.summary() == (figures(flat) if flat else None)


@pytest.mark.parametrize("at_once", [3, 1 << 22])
def test_tokens_by_source(pythia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int):
    """A text may name the token that ends documents: it counts wherever it stands."""
    monkeypatch.setattr(counting, "_AT_ONCE", at_once)
    paths, pairs = corpus_files(tmp_path)
    tokenize(paths, tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    ids, names = expected_ids(pairs), [source or "" for text, source in pairs if text]
    told = token_statistics(tmp_path / "x")
    assert (told["kind"], told["n"], told["n_tokens"]) == ("documents", len(ids), sum(map(len, ids)))
    assert told["n_bytes"] == (tmp_path / "x.bin").stat().st_size
    assert (told["eod_id"], told["n_eod"]) == (EOD, sum(each.count(EOD) for each in ids))
    assert told["n_eod"] > len(ids)
    assert told["tokens"] == figures([len(each) for each in ids])
    assert told["sources"] == [
        {
            "name": name,
            "n": names.count(name),
            "n_tokens": sum(len(each) for each, of in zip(ids, names, strict=True) if of == name),
        }
        for name in sorted(set(names))
    ]
    code, out, err = pythia("data", "stats", tmp_path / "x", "--output-format", "json")
    assert code == 0, err
    assert json.loads(out) == {"schema_version": 1} | told
    code, out, err = pythia("data", "stats", tmp_path / "x")
    assert code == 0, err
    assert ["all", f"{len(ids):,}", f"{told['n_tokens']:,}"] in [line.split() for line in out.splitlines()]
    assert f"{told['n_eod']:,} tokens are the end of a document, id {EOD}" in out


def test_tokens_without_anything_beside_them(tmp_path: Path):
    """Other people's documents have neither sources nor a tokenizer; rows in the order of training are none."""
    prefix = write_corpus(tmp_path / "x", [[1, 0], [0, 0, 2], [], [5]])
    told = token_statistics(prefix)
    assert (told["kind"], told["eod_id"], told["n_eod"], told["sources"]) == ("documents", 0, 3, [])
    assert told["tokens"] == {"min": 0, "median": 1.5, "mean": 1.5, "max": 3}
    write_idx(tmp_path / "x.idx", np.full(3, 2, np.int32), in_order=True)
    told = token_statistics(prefix)
    assert (told["kind"], told["n"], told["n_tokens"]) == ("rows", 3, 6)


@pytest.mark.parametrize("piece", [1, 400, 1 << 20])
def test_texts_by_source(pythia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int):
    monkeypatch.setattr(reading, "_PIECE_BYTES", piece)
    paths, pairs = corpus_files(tmp_path)
    told = text_statistics(paths)
    sizes = [(len(text.encode()), source or "") for text, source in pairs]
    assert told["sources"] == [
        {"name": name, "n": sum(s == name for _, s in sizes), "n_bytes": sum(n for n, s in sizes if s == name)}
        for name in sorted({s for _, s in sizes})
    ]
    assert (told["n"], told["n_bytes"]) == (len(pairs), sum(n for n, _ in sizes))
    assert told["n_empty"] == sum(not n for n, _ in sizes)
    assert told["bytes"] == figures([n for n, _ in sizes])
    code, out, err = pythia("data", "stats", *paths, "--output-format", "json")
    assert code == 0, err
    assert json.loads(out) == {"schema_version": 1} | told


def test_broken_lines_are_counted_and_named(pythia, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(texts(3, 1)) + b"\n".join([*BAD, b"", *[b"x"] * 30, b'{"text": "end"}']))
    told = text_statistics([path])
    assert (told["n"], told["n_broken"]) == (4, len(BAD) + 30)
    assert [entry["line"] for entry in told["broken"]] == [*range(4, 4 + len(BAD)), *range(5 + len(BAD), 25)]
    assert all(says in entry["why"] for says, entry in zip(BAD.values(), told["broken"], strict=False))
    code, out, err = pythia("data", "stats", path)
    assert (code, f"{len(BAD) + 30} lines are no document\n" in out) == (0, True), err


def test_what_has_no_figures(pythia, tmp_path: Path):
    prefix = write_corpus(tmp_path / "x", [[1, 0], [2]])
    with pytest.raises(StorageError, match="none.idx: cannot open"):
        token_statistics(tmp_path / "none")
    with pytest.raises(UsageError, match="pile has 600 GB, on the Hub. Fetch some steps: pythia data pull"):
        token_statistics("pile")
    (tmp_path / "x.corpus.json").write_text(json.dumps({"sources": [{"name": "a"}], "eod": "x"}))
    for labels, says in (
        ([0, 1], "document 1 is of source 1, and there are 1"),
        ([0], "has sources of 1 documents, expected 2"),
    ):
        write_array(tmp_path / "x.sources.npy", np.array(labels, np.uint16))
        with pytest.raises(ModelFileError, match=says):
            token_statistics(prefix)
    code, out, err = pythia("data", "stats", prefix, tmp_path / "y")
    assert (code, out) == (2, "")
    assert err.startswith("Error: PREFIX|CORPUS... must end with .jsonl or .txt, or that and .zst: ")
