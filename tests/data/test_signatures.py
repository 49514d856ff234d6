"""Pairs that share a key are as many as the theory says, and those of datasketch; memory does not follow the texts."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from data import near
from pythia_gguf.data import clusters, signatures
from pythia_gguf.data.clusters import Duplicates
from pythia_gguf.data.documents import Piece, Place
from pythia_gguf.data.processes import Workers
from pythia_gguf.data.signatures import Banding, SignedFile, Signer, banding_for
from pythia_gguf.progress import Silence

THRESHOLD = 0.87


def test_pairs_are_those_of_datasketch():
    """With the same cut of a signature. Both find every pair of this corpus, and no other once it is compared."""
    texts = near.corpus(240)
    cut, truth = banding_for(THRESHOLD), near.similar_pairs(texts, THRESHOLD)
    index = MinHashLSH(num_perm=128, params=(cut.bands, cut.rows))
    sketches = []
    for i, text in enumerate(texts):
        sketches.append(MinHash(num_perm=128))
        sketches[-1].update_batch({" ".join(shingle).encode() for shingle in near.shingles(text)})
        index.insert(i, sketches[-1])
    candidates = {(min(i, j), max(i, j)) for i, s in enumerate(sketches) for j in index.query(s) if i != j}
    theirs = {(i, j) for i, j in candidates if near.similarity(texts[i], texts[j]) >= THRESHOLD}
    assert theirs == truth
    lines = [json.dumps({"text": text}).encode() for text in texts]
    signed = Signer(cut).sign(Piece(first=1, lines=lines, end=Place(), n_read=0), True)
    keys = np.array([np.frombuffer(column, "<u8") for column in signed.columns])
    ours = {
        (i, j)
        for i in range(len(texts))
        for j in (np.flatnonzero((keys[:, i + 1 :] == keys[:, i, None]).any(axis=0)) + i + 1).tolist()
        if near.similarity(texts[i], texts[j]) >= THRESHOLD
    }
    assert ours == truth
    assert len(truth) > 50


def pairs_of(similar: tuple[int, int], n: int) -> list[bytes]:
    """Documents, each two with `similar[0]` shingles of `similar[1]` in common: a beginning of the same words."""
    both, either = similar
    rest = (either - both) // 2
    lines = []
    for i in range(n):
        beginning = [f"w{i}x{k}" for k in range(both + 4)]
        for side in "ab":
            words = [*beginning, *(f"{side}{i}x{k}" for k in range(rest))]
            lines.append(json.dumps({"text": " ".join(words)}).encode())
    return lines


@pytest.mark.parametrize("similar", [(87, 101), (73, 101), (51, 101)])
def test_pairs_are_compared_as_often_as_the_curve_says(similar: tuple[int, int]):
    """Of 1,500 pairs; within four standard deviations. Bands and rows swapped would miss by more than six of them."""
    n, cut = 1500, banding_for(THRESHOLD)
    documents = pairs_of(similar, n)
    one, other = (json.loads(line)["text"] for line in documents[:2])
    assert near.similarity(one, other) == similar[0] / similar[1]
    signed = Signer(cut).sign(Piece(first=1, lines=documents, end=Place(), n_read=0), True)
    keys = np.array([np.frombuffer(column, "<u8") for column in signed.columns[1:]])
    share = float((keys[:, ::2] == keys[:, 1::2]).any(axis=0).mean())
    expected = cut.recall(similar[0] / similar[1])
    deviation = math.sqrt(expected * (1 - expected) / n)
    assert abs(share - expected) < 4 * deviation
    swapped = Banding(bands=cut.rows, rows=cut.bands).recall(similar[0] / similar[1])
    assert abs(swapped - expected) > 6 * deviation


def test_a_threshold_says_how_signatures_are_cut():
    """As few comparisons as leave 99 % of the pairs at the threshold to be found."""
    assert banding_for(0.87) == Banding(bands=14, rows=9)
    assert round(banding_for(0.87).recall(0.87), 4) == 0.991
    for percent in range(10, 101):
        cut = banding_for(percent / 100)
        assert cut.bands * cut.rows <= 128
        assert cut.recall(percent / 100) >= 0.99
        more = Banding(bands=128 // (cut.rows + 1), rows=cut.rows + 1) if cut.rows < 128 else None
        assert more is None or more.recall(percent / 100) < 0.99


def test_memory_is_a_few_bytes_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """42 bytes each, 64 for each key that is sorted at once, and two blocks of a file; all keys at once take more."""
    n, most = 1 << 18, 1 << 14
    rng = np.random.default_rng(1)
    for name in ("words", "band00", "band01"):
        (tmp_path / name).write_bytes(rng.integers(0, 1 << 63, n, np.uint64).tobytes())
    (tmp_path / "lines").write_bytes(np.arange(1, n + 1, dtype=np.uint64).tobytes())
    (tmp_path / "a.txt").write_bytes(b"")
    monkeypatch.setattr(clusters, "CHUNK_BYTES", 1 << 16, raising=False)
    monkeypatch.setattr(signatures, "CHUNK_BYTES", 1 << 16)
    file = SignedFile(path=tmp_path / "a.txt", folder=tmp_path, n=n, sources=[""], broken=[])
    peaks = []
    with Workers(1, Signer(banding_for(THRESHOLD))) as workers:
        for each in (most, 1 << 24):
            monkeypatch.setattr(clusters, "_MOST_KEYS", each)
            tracemalloc.start()
            with Duplicates([file], 2, THRESHOLD) as found:
                found.find(tmp_path, workers, Silence())
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert np.array_equal(found.roots, np.arange(n))
    assert peaks[0] < 42 * n + 64 * most + (1 << 20) < peaks[1]
