"""The files of an index: the same in any run, and never believed when they are damaged or of other tokens."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from data import neox
from data.test_mutants import N_MUTANTS, answers
from pythia_gguf.data import suffixes
from pythia_gguf.data.finding import Finder
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.index import make_index
from pythia_gguf.data.suffixes import SuffixIndex, account_path, suffixes_path, sums_path
from pythia_gguf.data.tokenizing import corpus_path, sources_path
from pythia_gguf.errors import ModelFileError, StorageError, UsageError
from pythia_gguf.json_file import json_text

RNG = np.random.default_rng(1)
DOCUMENTS = [RNG.integers(0, 3, 40 + d).tolist() + [9] for d in range(9)]
QUERIES = [[0], [1, 2], [2, 2, 0], [9], [1, 1, 1, 1, 1], [0, 1, 2, 0], [7]]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = neox.write_corpus(tmp_path / "x", DOCUMENTS)
    make_index(prefix)
    return prefix


def files(prefix: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in prefix.parent.glob(f"{prefix.name}.suffixes.*")}


def all_answers(prefix: Path) -> str:
    with Finder(prefix) as finder:
        longest = finder.index.longest(DOCUMENTS[3][5:30])
        return repr([finder.occurrences(ids, 1000) for ids in QUERIES] + [longest])


def test_files_are_as_large_as_promised(prefix: Path):
    """Four bytes a token, with 128 of a header and 4 for each 16,384 tokens: 6.0003 with the tokens themselves."""
    n = sum(map(len, DOCUMENTS))
    array = np.load(suffixes_path(prefix))
    assert (array.dtype, array.shape) == (np.uint32, (n,))
    assert suffixes_path(prefix).stat().st_size == 128 + 4 * n
    assert sums_path(prefix).stat().st_size == 128 + 4
    assert sorted(files(prefix)) == ["x.suffixes.json", "x.suffixes.npy", "x.suffixes.sums.npy"]


def test_an_index_that_is_there_is_checked_and_kept(prefix: Path):
    stamps = {p: p.stat().st_mtime_ns for p in prefix.parent.glob(f"{prefix.name}.suffixes.*")}
    told = make_index(prefix)
    assert (told["is_new"], told["n_tokens"], told["parts"]) == (False, sum(map(len, DOCUMENTS)), [0])
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert make_index(prefix, force=True)["is_new"]


def test_parts_hold_whole_documents(prefix: Path):
    """100 tokens at a time, an end for each document with them: two documents of 41 to 49."""
    told = make_index(prefix, part_tokens=100, force=True)
    ends = np.cumsum([0, *map(len, DOCUMENTS)]).tolist()
    assert told["parts"] == ends[:-1:2]
    assert make_index(prefix, part_tokens=1, force=True)["parts"] == ends[:-1]


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_run_that_was_ended_goes_on(prefix: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    make_index(prefix, part_tokens=100, force=True)
    whole, n_saved, save = files(prefix), [], GrowingFiles.save

    def until(self: GrowingFiles, position: dict[str, object]) -> None:
        n_saved.append(position)
        if len(n_saved) == at:
            raise KeyboardInterrupt
        save(self, position)

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFiles, "save", until)
        with pytest.raises(KeyboardInterrupt):
            make_index(prefix, part_tokens=100, force=True)
    assert files(prefix) == whole
    sorted_again = []
    monkeypatch.setattr(GrowingFiles, "save", lambda self, p: (sorted_again.append(p), save(self, p)))
    make_index(prefix, part_tokens=100, force=True)
    assert files(prefix) == whole
    assert len(sorted_again) == 5 - (at - 1)
    assert not (prefix.parent / ".x.suffixes.unfinished").exists()


@pytest.mark.parametrize("path_of", [suffixes_path, sums_path], ids=["array", "sums"])
def test_damage_is_noticed_wherever_it_is(prefix: Path, monkeypatch: pytest.MonkeyPatch, path_of):
    """A few blocks: an answer is right or refused. Running the command again finds every change."""
    monkeypatch.setattr(suffixes, "BLOCK", 64)
    make_index(prefix, part_tokens=100, force=True)
    path, right, rng, refused = path_of(prefix), all_answers(prefix), random.Random(5), 0
    good = path.read_bytes()
    for _ in range(150):
        data = bytearray(good)
        at = rng.randrange(len(data))
        if rng.randrange(4):
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at:] = bytes(rng.randrange(2) * 7)
        path.write_bytes(data)
        with pytest.raises(ModelFileError) as e:
            make_index(prefix)
        assert str(e.value).isprintable() and str(prefix.parent) in str(e.value)
        try:
            assert all_answers(prefix) == right
        except ModelFileError:
            refused += 1
    assert refused > 100
    path.write_bytes(good)
    assert all_answers(prefix) == right


def test_places_past_the_end_are_refused_even_where_sums_are_right(prefix: Path, monkeypatch: pytest.MonkeyPatch):
    array = np.load(suffixes_path(prefix))
    monkeypatch.setattr(SuffixIndex, "_check", lambda self, block: None)
    for wrong in (array.size, 2**32 - 1):
        np.save(suffixes_path(prefix), np.full_like(array, wrong))
        with Finder(prefix) as finder, pytest.raises(ModelFileError, match="tell places beyond the end"):
            finder.count([1])


def test_mutants_of_an_account_are_refused_or_change_nothing(prefix: Path):
    make_index(prefix, part_tokens=100, force=True)

    def read() -> int:
        with Finder(prefix) as finder:
            return finder.count([1, 2])

    right = read()
    found = answers(account_path(prefix), read)
    assert {each for each in found if not isinstance(each, str)} == {right}
    assert sum(isinstance(each, str) for each in found) > N_MUTANTS // 2


@pytest.mark.parametrize("change", ["token", "size"])
def test_an_index_of_other_tokens_is_refused(pythia, prefix: Path, change: str):
    if change == "token":
        neox.write_corpus(prefix, [[t ^ 1 for t in document] for document in DOCUMENTS])
    else:
        neox.write_corpus(prefix, [*DOCUMENTS[1:], DOCUMENTS[0]])
    says = "x.suffixes.json: it is of other tokens than those that are there now. Run pythia data index again"
    for attempt in (Finder, make_index):
        with pytest.raises(ModelFileError, match=re.escape(says)):
            attempt(prefix)
    said = f"Error: {prefix}.{says[2:]}"
    assert pythia("data", "find", prefix, "1", "--ids") == (65, "", f"{said}\n")
    assert pythia("data", "index", prefix) == (65, "", f"{said}, with --force\n")
    assert pythia("data", "index", prefix, "--force")[0] == 0
    Finder(prefix).close()


def test_what_cannot_be_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prefix = neox.write_corpus(tmp_path / "x", [[1, 2, 3]])
    with pytest.raises(UsageError, match="has no index. Make one: pythia data index"):
        Finder(prefix)
    with pytest.raises(UsageError, match="part_tokens must be at least 1, got 0"):
        make_index(prefix, part_tokens=0)
    with pytest.raises(UsageError, match="must be on this machine to be searched. Use pythia data pull"):
        Finder("pile")
    with pytest.raises(StorageError, match="none.idx: cannot open"):
        make_index(tmp_path / "none")
    monkeypatch.setattr("pythia_gguf.machine.available_memory_bytes", lambda: 0)
    monkeypatch.setattr("pythia_gguf.machine._NO_QUESTION_BYTES", 0)
    with pytest.raises(
        UsageError, match="sorting 4 tokens needs 80 bytes of memory, 0 bytes are free. Ask for fewer part_tokens"
    ):
        make_index(prefix, part_tokens=9)
    (tmp_path / "x.idx").write_bytes(neox.idx_bytes([3], item=4, code=4))
    (tmp_path / "x.bin").write_bytes(bytes(12))
    with pytest.raises(UsageError, match="an index needs ids of two bytes, these have 4"):
        make_index(prefix)
    neox.write_corpus(prefix, [[]])
    with pytest.raises(UsageError, match="holds no token"):
        make_index(prefix)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.bin", "x.idx"]


def test_mutants_of_the_sources_of_documents(prefix: Path):
    """Names are those that a good file has, or one line says what is wrong."""
    np.save(sources_path(prefix), np.arange(len(DOCUMENTS), dtype="<u2") % 2)
    told = {"inputs": ["a.jsonl"] * 20, "sources": [{"name": "Pile-CC"}, {"name": "ArXiv"}], "left_out": ["x"] * 20}
    corpus_path(prefix).write_text(json_text(told))

    def read() -> tuple[str | None, ...]:
        with Finder(prefix) as finder:
            return tuple(hit.source for hit in finder.hits([9]))

    right = read()
    assert right == ("Pile-CC", "ArXiv") * 4 + ("Pile-CC",)
    found = answers(corpus_path(prefix), read, 200)
    assert found.count(right) > 5 and sum(isinstance(each, str) for each in found) > 50
    np.save(sources_path(prefix), np.full(len(DOCUMENTS), 2, "<u2"))
    with pytest.raises(ModelFileError, match="x.sources.npy: no source of document 0"):
        read()
