"""Near-duplicates are found as the definition has them, and the rest stays byte for byte, however the work is done."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data import near
from pythia_gguf.data import clusters, dedup_steps, signatures
from pythia_gguf.data import documents as reading
from pythia_gguf.data.dedup import dedup
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.signatures import Signer
from pythia_gguf.errors import LockedError, ModelFileError, NetworkError, PythiaGGUFError, StorageError, UsageError
from pythia_gguf.lock import lock

THRESHOLD = 0.87


def made(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def unpacked(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return near.corpus(240)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> list[Path]:
    return near.write(tmp_path_factory.mktemp("corpus"), texts)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, paths: list[Path]) -> dict[str, bytes]:
    """What a run in one go writes, whose contents the first test holds."""
    out = tmp_path_factory.mktemp("made") / "out"
    dedup(paths, out, processes=1)
    return made(out)


def test_what_stays_and_what_does_not(texts: list[str], expected: dict[str, bytes]):
    """The first of each cluster, its line unchanged; each of the others with the one that stays and how like it is."""
    pairs = near.similar_pairs(texts, THRESHOLD)
    firsts = near.first_of_cluster(len(texts), pairs)
    middle, n = len(texts) // 2, len(texts)
    sources = [(0, middle, "a.jsonl", "Pile-CC"), (middle, n - 1, "b.jsonl.zst", "ArXiv"), (n - 1, n, "c.txt", "")]
    place = {}
    for begin, end, name, source in sources:
        lines = near.lines_of(texts[begin:end], source) if source else [texts[-1].encode()]
        place |= {begin + i: (name, i + 1) for i in range(end - begin)}
        kept = [line for i, line in enumerate(lines, begin) if firsts[i] == i]
        data = b"".join(line + b"\n" for line in kept) if source else b"".join(kept)
        assert (unpacked(expected[name]) if "zst" in name else expected.get(name, b"")) == data
    removed = [json.loads(line) for line in expected["removed.jsonl"].splitlines()]
    others = [i for i in range(n) if firsts[i] != i]
    assert [(entry["file"], entry["line"]) for entry in removed] == [place[i] for i in others]
    for entry, i in zip(removed, others, strict=True):
        assert tuple(entry["duplicate_of"].values()) == place[firsts[i]]
        assert entry["similarity"] == round(near.similarity(texts[i], texts[firsts[i]]), 4)
    assert len({entry["similarity"] for entry in removed}) > 5
    report = json.loads(expected["report.json"])
    assert (report["documents"], report["removed"]) == (n, len(others))
    for begin, end, name, source in sources:
        counts = {"documents": end - begin, "kept": sum(firsts[i] == i for i in range(begin, end))}
        counts["removed"] = counts["documents"] - counts["kept"]
        assert {"file": name} | counts in report["files"]
        assert {"name": source} | counts in report["sources"]
    assert ".signatures" not in " ".join(expected)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_no_byte_depends_on_shards(tmp_path: Path, paths: list[Path], expected: dict[str, bytes], n: int):
    """Made in any order; a shard may hold no file, and the last one may be missing: then it is made at the end."""
    counts = [dedup(paths, tmp_path, shard=f"{i}/{n}", processes=1) for i in range(1, n + 1) if n == 1 or i != 3]
    assert sum(each["files"] for each in counts) == (2 if n == 7 else 3)
    dedup(paths, tmp_path, processes=1)
    assert made(tmp_path) == expected
    assert dedup(paths, tmp_path, shard="1/2", processes=1) == json.loads(expected["report.json"])


def test_no_byte_depends_on_processes_or_the_size_of_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[Path], expected: dict[str, bytes]
):
    monkeypatch.setattr(reading, "_PIECE_BYTES", 5000)
    monkeypatch.setattr(clusters, "_MOST_KEYS", 50)
    dedup(paths, tmp_path / "one", processes=1)
    dedup(paths, tmp_path / "two", processes=2)
    assert made(tmp_path / "one") == made(tmp_path / "two") == expected


def interrupted(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """A function that Ctrl-C ends at its call number `at`."""
    calls: list[int] = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return function(*args, **options)

    return call


@pytest.mark.parametrize(
    ("module", "name", "at"),
    [
        (GrowingFiles, "append", 40),
        (GrowingFiles, "append", 300),
        (clusters, "write_all", 20),
        (dedup_steps, "_write_file", 2),
        (dedup_steps, "write_text", 1),
    ],
)
def test_a_run_that_was_ended_goes_on(
    tmp_path: Path, paths: list[Path], expected: dict[str, bytes], module: Any, name: str, at: int
):
    """What it had saved is not made again, nothing is half written, and the result is that of a run in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE_BYTES", 8000)
        patch.setattr(signatures, "_SAVE_BYTES", 20_000)
        with pytest.MonkeyPatch.context() as ending:
            ending.setattr(module, name, interrupted(getattr(module, name), at))
            with pytest.raises(KeyboardInterrupt):
                dedup(paths, tmp_path / "out", processes=1)
        there = {n: data for n, data in made(tmp_path / "out").items() if not n.startswith(".signatures")}
        assert there.items() <= expected.items()
        assert "report.json" not in there
        signed: list[int] = []
        sign = Signer.sign
        patch.setattr(Signer, "sign", lambda *args: (signed.append(1), sign(*args))[1])
        dedup(paths, tmp_path / "out", processes=1)
        n_pieces = sum(len(list(reading.read_pieces(path))) for path in paths)
        assert (len(signed) < n_pieces) is (at != 40)
    assert made(tmp_path / "out") == expected


def write_lines(path: Path, entries: list[Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return path


def kept_texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_bytes().splitlines()]


LONG = [f"word{i}" for i in range(200)]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["", " \n", "x"], ["", "x"]),
        (["a b", "a  b", "a b.", "A b", "a b c"], ["a b", "a b.", "A b", "a b c"]),
        (["漢字", "漢 字", "漢"], ["漢字", "漢"]),
        ([" ".join(LONG)] * 3, [" ".join(LONG)]),
        (["--- +++", "+++ ---"], ["--- +++", "+++ ---"]),
        ([" ".join(LONG[:k]) for k in (200, 180, 160)], [" ".join(LONG)]),
        ([" ".join(LONG[:k]) for k in (200, 160)], [" ".join(LONG[:k]) for k in (200, 160)]),
        (["e\u0301te", "\u00e9te"], ["e\u0301te", "\u00e9te"]),
    ],
    ids=["empty", "short", "chinese", "identical", "punctuation", "chain", "below", "combining"],
)
def test_which_documents_count_as_duplicates(tmp_path: Path, given: list[str], kept: list[str]):
    """Short ones where their words are equal; others by their shingles, and through others that lie between."""
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in given])
    told = dedup([path], tmp_path / "out", processes=1)
    assert kept_texts(tmp_path / "out" / "a.jsonl") == kept
    assert (told["kept"], told["removed"]) == (len(kept), len(given) - len(kept))


def test_a_document_is_told_its_similarity_to_the_one_that_stays(tmp_path: Path):
    """Which lies below the threshold for the last of a chain."""
    path = write_lines(tmp_path / "a.jsonl", [{"text": " ".join(LONG[:k])} for k in (200, 180, 160)])
    dedup([path], tmp_path / "out", processes=1)
    removed = [json.loads(line) for line in (tmp_path / "out" / "removed.jsonl").read_text().splitlines()]
    assert [entry["similarity"] for entry in removed] == [round(176 / 196, 4), round(156 / 196, 4)]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_other_thresholds(tmp_path: Path, threshold: float):
    texts = near.corpus(60, seed=2)
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    dedup([path], tmp_path / "out", threshold=threshold, processes=1)
    firsts = near.first_of_cluster(len(texts), near.similar_pairs(texts, threshold))
    assert kept_texts(tmp_path / "out" / "a.jsonl") == [text for i, text in enumerate(texts) if firsts[i] == i]


def test_lines_stay_as_they_are(tmp_path: Path):
    """With their spaces, keys and carriage returns; blank ones are no documents, and a last one gets its end."""
    lines = [
        b'{"text":"one",  "n": 1e400}\r',
        b"",
        b'  {"n":[1.0],"text":"tw\\u006f"}',
        b'{"text":"one"}',
        b'{"text":"z"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.txt").write_bytes(b"a text\r\nwithout an end")
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(b"a text without  an end"))
    dedup([tmp_path / name for name in ("a.jsonl", "b.txt", "c.txt.zst")], tmp_path / "out", processes=1)
    files = made(tmp_path / "out")
    assert files["a.jsonl"] == b"".join(lines[i] + b"\n" for i in (0, 2, 4))
    assert files["b.txt"] == b"a text\r\nwithout an end"
    assert "c.txt.zst" not in files


def test_a_broken_line_stops_or_is_left_out(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text":"one"}\n{"text":1}\n{"text":"one"}\n')
    for shard in ("1/1", None):
        with pytest.raises(ModelFileError, match=f"{re.escape(str(path))}: line 2: expected an object.* broken='skip'"):
            dedup([path], tmp_path / "out", shard=shard, processes=1)
        assert not (tmp_path / "out").exists()
    dedup([path], tmp_path / "out", shard="1/1", processes=1, broken="skip")
    told = dedup([path], tmp_path / "out", processes=1, broken="skip")
    assert [(entry["file"], entry["line"]) for entry in told["left_out"]] == [("a.jsonl", 2)]
    assert kept_texts(tmp_path / "out" / "a.jsonl") == ["one"]


def test_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    good, out = write_lines(tmp_path / "a.jsonl", [{"text": "one"}]), tmp_path / "out"
    (tmp_path / "b").mkdir()
    again = write_lines(tmp_path / "b" / "a.jsonl", [{"text": "one"}])
    empty = write_lines(tmp_path / "empty.jsonl", [])
    removed = write_lines(tmp_path / "removed.jsonl", [{"text": "one"}])
    cases: list[tuple[list[Path], dict[str, Any], type[PythiaGGUFError], str]] = [
        (
            [good, again],
            {},
            UsageError,
            "corpus must hold files of different names, each for one of the results: a.jsonl",
        ),
        ([removed], {}, UsageError, "corpus must hold files of different names"),
        ([empty], {}, UsageError, "corpus holds no document"),
        ([tmp_path / "a.csv"], {}, UsageError, "corpus must end with .jsonl or .txt"),
        ([tmp_path / "none.jsonl"], {}, StorageError, "none.jsonl: cannot open"),
        ([good], {"threshold": 0.05}, UsageError, "threshold must be between 0.1 and 1"),
        ([good], {"threshold": math.nan}, UsageError, "threshold must be between 0.1 and 1"),
        ([good], {"shard": "0/2"}, UsageError, "shard must be from 1/N to N/N, got '0/2'"),
        ([good], {"shard": "3/2"}, UsageError, "shard must be from 1/N to N/N, got '3/2'"),
        ([good], {"broken": "keep"}, UsageError, "broken must be one of stop, skip"),
        ([good], {"processes": 0}, UsageError, "processes must be at least 1, got 0"),
        ([good], {"ray": "here"}, UsageError, "ray must be HOST:PORT, local or auto, got 'here'"),
        ([good], {"ray": "127.0.0.1:1"}, NetworkError, "no Ray cluster answers at 127.0.0.1:1"),
        ([good], {"ray": "local", "shard": "1/2"}, UsageError, "shard says nothing on a Ray cluster"),
        ([good], {"ray": "local", "processes": 2}, UsageError, "processes says nothing on a Ray cluster"),
    ]
    for paths, options, kind, says in cases:
        with pytest.raises(kind, match=re.escape(says)):
            dedup(paths, out, **({} if "ray" in options else {"processes": 1}) | options)
        assert not out.exists()
    with pytest.raises(UsageError, match="out must not be the folder of .*a.jsonl, which would be replaced"):
        dedup([good], tmp_path)
    with pytest.raises(StorageError, match="is a file, expected a folder"):
        dedup([good], good / "x")
    for library, extra in (("rensa", "data"), ("ray", "ray")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(UsageError, match=rf"needs {library}. Run: pip install 'pythia-gguf\[{extra}\]'"):
                dedup([good], out, ray="local" if library == "ray" else None)


def test_results_that_are_there_stay(tmp_path: Path):
    one, other = (write_lines(tmp_path / name, [{"text": name}]) for name in ("a.jsonl", "b.jsonl"))
    out = tmp_path / "out"
    told = dedup([one], out, processes=1)
    before = made(out)
    assert dedup([one], out, processes=1) == told
    for paths, threshold in (([other], 0.87), ([one], 0.5)):
        with pytest.raises(UsageError, match="other results are there. Choose another out, or use force=True"):
            dedup(paths, out, threshold=threshold, processes=1)
    assert made(out) == before
    text = tmp_path / "c.txt"
    text.write_text("c.jsonl")
    dedup([text], out, processes=1, force=True)
    assert made(out)["c.txt"] == b"c.jsonl"
    one.write_text('{"text": "c.jsonl"}\n')
    dedup([one, text], out, threshold=0.5, processes=1, force=True)
    assert json.loads(made(out)["report.json"])["threshold"] == 0.5
    assert "c.txt" not in made(out)
    (out / "report.json").unlink()
    with pytest.raises(UsageError, match="removed.jsonl: other results are there"):
        dedup([one], out, processes=1)


def test_one_run_at_a_time(tmp_path: Path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "one"}])
    dedup([path], tmp_path / "out", shard="1/1", processes=1)
    for name in (".dedup.lock", ".signatures/.00000.lock"):
        with lock(tmp_path / "out" / name), pytest.raises(LockedError):
            dedup([path], tmp_path / "out", processes=1)


@pytest.mark.campaign
def test_two_nodes_of_a_ray_cluster_make_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[Path], expected: dict[str, bytes]
):
    """And say what is wrong as any run does."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.chdir(tmp_path)
        dedup(paths, "out", ray=cluster.address)
        bad = write_lines(tmp_path / "bad.jsonl", [{"text": 1}])
        with pytest.raises(ModelFileError, match="bad.jsonl: line 1: expected an object"):
            dedup([bad], "other", ray=cluster.address)
    finally:
        cluster.shutdown()
    assert made(tmp_path / "out") == expected


def test_the_command_says_what_it_removed(pythia, tmp_path: Path):
    rng = random.Random(1)
    words = [f"word{rng.randrange(900)}" for _ in range(300)]
    entries = [{"text": " ".join(w), "meta": {"pile_set_name": "ArXiv"}} for w in (words, near.changed(words, 2, rng))]
    path = write_lines(tmp_path / "a.jsonl", [*entries, {"text": "other"}])
    line = ("data", "dedup", path, "-o", tmp_path / "out", "--processes", "1")
    code, out, err = pythia(*line, "--shard", "1/1")
    assert (code, out) == (0, "shard 1/1: signatures of 3 documents in 1 files\n"), err
    code, out, err = pythia(*line)
    assert code == 0, err
    assert [row.split() for row in out.splitlines()[1:-1]] == [
        ["ArXiv", "2", "1", "1"],
        ["(not", "said)", "1", "1", "0"],
        ["all", "3", "2", "1"],
    ]
    assert out.splitlines()[-1] == f"what was removed, and why: {tmp_path / 'out' / 'removed.jsonl'}"
    code, out, err = pythia(*line, "--output-format", "json")
    assert json.loads(out)["kept"] == 2
