"""The JSON files of data, damaged many times: a run says one line, or makes what it makes of good ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hub.loopback import LoopbackHub
from press.damage import damaged_json
from pythia_gguf.data.corpus import is_whole, listed_in
from pythia_gguf.data.dedup import dedup
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.pulled import PulledRows, pull_rows, rows_path, tokenizer_beside
from pythia_gguf.data.statistics import token_statistics
from pythia_gguf.data.tokenizing import corpus_path, tokenize
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, UsageError

from .test_published import rows  # noqa: F401
from .test_tokenizing import TOKENIZER, corpus_files

N_MUTANTS = 1000


def answers(path: Path, read: Callable[[], object], n_mutants: int = N_MUTANTS) -> list[object]:
    """What reading a file gives, or says, for each of its mutants; the file is good again afterwards."""
    good, rng, found = path.read_bytes(), random.Random(path.name), []
    for _ in range(n_mutants):
        path.write_bytes(damaged_json(good, rng))
        try:
            found.append(read())
        except PythiaGGUFError as e:
            found.append(str(e) if isinstance(e, ModelFileError | UsageError) and str(e).isprintable() else e)
    path.write_bytes(good)
    assert not [each for each in found if isinstance(each, Exception)]
    return found


@pytest.mark.usefixtures("rows")
def test_mutants_of_an_account_of_rows(hub: LoopbackHub, tmp_path: Path):
    prefix = tmp_path / "x"
    pull_rows("pile-deduped", prefix, first_step=2, last_step=3, batch=4)

    def read() -> tuple[int, int]:
        pulled = PulledRows(prefix)
        pulled.read_rows(pulled.n_rows - 1, 1)
        pulled.close()
        return pulled.first_row, pulled.n_rows

    found = answers(rows_path(prefix), read)
    assert found.count((4, 8)) > N_MUTANTS // 20
    assert sum(isinstance(each, str) for each in found) > N_MUTANTS // 4


def test_mutants_of_an_account_of_a_corpus(tmp_path: Path):
    """Files and tokens are compared with it; where they are not its own, other tokens are in the way."""
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')

    def read() -> object:
        return tokenize([tmp_path / "a.jsonl"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)["n_tokens"]

    n_tokens = read()
    found = answers(corpus_path(tmp_path / "x"), read, 100)  # each loads the tokenizer
    assert found.count(n_tokens) > 2
    assert {each for each in found if not isinstance(each, str)} == {n_tokens}
    assert sum("other tokens are there" in each for each in found if isinstance(each, str)) > 5


def test_mutants_of_an_account_beside_sources(tmp_path: Path):
    """Names of sources and the token that ends documents are read from it."""
    (tmp_path / "a.jsonl").write_text('{"text": "one", "meta": {"pile_set_name": "a"}}\n{"text": "two"}\n')
    tokenize([tmp_path / "a.jsonl"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    tokenizer_beside(tmp_path / "x").unlink()  # it takes long to load, and is read elsewhere

    def read() -> object:
        told = token_statistics(tmp_path / "x")
        return [(each["n"], each["n_tokens"]) for each in told["sources"]]

    good = read()
    found = answers(corpus_path(tmp_path / "x"), read)
    assert found.count(good) > N_MUTANTS // 4
    assert sum(isinstance(each, str) for each in found) > N_MUTANTS // 20


def test_mutants_of_a_list_of_sources(tmp_path: Path):
    """What is not whole by the list is made again; the list of another program is refused."""
    entry = {"name": "python", "file": "python.jsonl", "n_documents": 1, "n_bytes": 2}
    packages = [{"name": "python3.11-doc", "version": "1", "licence": "PSF-2"}]
    (tmp_path / "python.jsonl").write_text("{}")
    (tmp_path / "corpus.json").write_text(
        json.dumps({"schema_version": 1, "sources": [entry | {"packages": packages}]})
    )

    def read() -> object:
        made = {entry["name"]: entry for entry in listed_in(tmp_path)}
        return is_whole(tmp_path, made.get("python"))

    found = answers(tmp_path / "corpus.json", read)
    assert found.count(True) > N_MUTANTS // 20
    assert found.count(False) > N_MUTANTS // 40
    assert sum(isinstance(each, str) for each in found) > N_MUTANTS // 20


def test_mutants_of_a_report_of_duplicates(tmp_path: Path):
    """It is of the same run, which has nothing to do then, or other results are in the way."""
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "one"}\n')

    def read() -> object:
        return dedup([tmp_path / "a.jsonl"], tmp_path / "out", processes=1)["threshold"]

    assert read() == 0.87
    found = answers(tmp_path / "out" / "report.json", read, 200)
    assert found.count(0.87) > 10
    assert {each for each in found if not isinstance(each, str)} == {0.87}
    assert sum("other results are there" in each for each in found if isinstance(each, str)) > 10


def test_mutants_of_a_saved_state_are_no_state(tmp_path: Path):
    """Where a run stopped is taken as it was saved, or not at all."""
    position = {"file": 0, "end": 20, "broken": [[0, 3, "why"]], "sources": [["Pile-CC", 1, 2]]}
    with GrowingFiles(tmp_path / "x", ("tokens",), {"a": 1}) as files:
        files.append("tokens", b"four")
        files.save(position)

    def read() -> str:
        with GrowingFiles(tmp_path / "x", ("tokens",), {"a": 1}) as files:
            n = (files.folder / "tokens").stat().st_size
            files.append("tokens", b"four"[n:])
            assert n == (4 if files.position else 0)
            return json.dumps(files.position)

    found = answers(tmp_path / ".x.unfinished" / "state.json", read)
    assert set(found) == {json.dumps(position), "{}"}
    assert found.count("{}") > N_MUTANTS // 4


def test_corpus_files_are_read_from_the_beginning_after_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths, _ = corpus_files(tmp_path)
    tokenize(paths, tmp_path / "whole", tokenizer=TOKENIZER, processes=1)

    def end(self: GrowingFiles, name: str, place: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFiles, "move", end)
        with pytest.raises(KeyboardInterrupt):
            tokenize(paths, tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    state = tmp_path / ".x.unfinished" / "state.json"
    good = state.read_text()
    state.write_text(good.replace('"at": 0', '"at": 1'))
    assert state.read_text() != good
    tokenize(paths, tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    assert (tmp_path / "x.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
