"""A corpus of packages that apt fetches from a repository on this disk: apt and dpkg are the real ones."""

from __future__ import annotations

import base64
import gzip
import json
import re
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from data.packages import Repository
from patience import HANGS_S
from pythia_gguf.data.corpus import make_corpus
from pythia_gguf.data.corpus_forms import books, dictionary
from pythia_gguf.data.corpus_sources import SOURCES
from pythia_gguf.data.documents import document_of
from pythia_gguf.data.tokenizing import tokenize
from pythia_gguf.errors import ModelFileError, NetworkError, StorageError, UsageError

TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
DOC = "usr/share/doc"
FREE = b"Format: https://x\n\nFiles: *\nLicense: GPL-2+\n\nFiles: a\nLicense: MIT\n\nLicense: GPL-2+\n text\n"
MAN = ".TH x 1\n.SH NAME\n{} \\- made\n"
pytestmark = pytest.mark.apt


def page(text: str) -> bytes:
    return f"<html><head><title>x</title></head><body><nav>gone</nav><p>{text}</p></body></html>".encode()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Python's documentation in two versions, manuals in two packages, a dictionary, one text that is not UTF-8."""
    made = Repository(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(made.config))
    for number in (9, 11):
        html = f"{DOC}/python3.{number}/html"
        files = {f"{html}/library/b.html": page(f"bisect {number}"), f"{html}/a.html": page("about")}
        files |= {f"{html}/genindex.html": page("gone"), f"{html}/empty.html": page("")}
        made.add(f"python3.{number}-doc", files | {f"{DOC}/python3.{number}-doc/copyright": b"free\n"})
    first = {"usr/share/man/man7/b.7.gz": gzip.compress(MAN.format("b").encode(), mtime=0)}
    first |= {f"{DOC}/manpages/copyright": FREE, "usr/share/man/man7/link.7.gz": "b.7.gz"}
    made.add("manpages", first)
    second = {"usr/share/man/man2/a.2.gz": gzip.compress(MAN.format("a").encode(), mtime=0)}
    made.add("manpages-dev", second | {f"{DOC}/manpages-dev": "manpages"})
    made.add("jargon-text", {f"{DOC}/jargon-text/jargon.txt.gz": gzip.compress("caf\xe9".encode("latin-1"), mtime=0)})
    made.update()
    return made


def documents(path: Path) -> list[tuple[str, str]]:
    """(file, text) of the lines, whose source is the name of the file."""
    lines = path.read_bytes().splitlines()
    assert {document_of(line, is_json=True).source for line in lines} == {path.stem}
    return [(json.loads(line)["meta"]["file"], json.loads(line)["text"]) for line in lines]


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_each_source_is_a_file_of_labelled_documents(repository: Repository, tmp_path: Path):
    told = make_corpus(tmp_path / "x")
    assert [(s["name"], s["n_documents"]) for s in told["sources"]] == [("python", 2), ("manpages", 2), ("jargon", 1)]
    html = f"{DOC}/python3.11/html"
    assert documents(tmp_path / "x/python.jsonl") == [
        (f"{html}/a.html", "about"),
        (f"{html}/library/b.html", "bisect 11"),
    ]
    assert [text for _, text in documents(tmp_path / "x/manpages.jsonl")] == ["NAME\nb - made", "NAME\na - made"]
    assert [text for _, text in documents(tmp_path / "x/jargon.jsonl")] == ["caf\xe9"]
    assert {"perl-doc", "postgresql-doc-N", "linux-doc-N.N"} < set(told["missing"])
    assert len(told["missing"]) == len({p for s in SOURCES.values() for p in s.packages}) - 4
    packages = [p for source in told["sources"] for p in source["packages"]]
    assert [(p["name"], p["licence"]) for p in packages] == [
        ("python3.11-doc", SOURCES["python"].licence),
        ("manpages", "GPL-2+; MIT"),
        ("manpages-dev", SOURCES["manpages"].licence),
        ("jargon-text", SOURCES["jargon"].licence),
    ]
    for package in packages:
        row = f"| {package['name']} | {package['version']} | {package['licence']} |\n"
        assert row in (tmp_path / "x/LICENSES.md").read_text()
    assert (tmp_path / "x/licenses/python3.11-doc").read_text() == "free\n"
    assert (tmp_path / "x/licenses/manpages-dev").read_text() == "The same as that of manpages\n"
    assert not [name for name in all_files(tmp_path / "x") if name.startswith(".")]
    counted = tokenize(sorted((tmp_path / "x").glob("*.jsonl")), tmp_path / "ids", tokenizer=TOKENIZER, processes=1)
    assert {s["name"]: s["documents"] for s in counted["sources"]} == {"python": 2, "manpages": 2, "jargon": 1}


def test_the_same_packages_give_the_same_bytes_and_what_is_whole_stays(repository: Repository, tmp_path: Path):
    make_corpus(tmp_path / "x", sources="python, jargon")
    (tmp_path / "y/.packages/jargon-text").mkdir(parents=True)
    (tmp_path / "y/.packages/jargon-text/jargon-text_1.0-1_all.deb").write_bytes(
        b"half of it, of a run that was killed"
    )
    make_corpus(tmp_path / "y", sources=["jargon"])
    assert "python.jsonl" not in all_files(tmp_path / "y")
    make_corpus(tmp_path / "y", sources=["python", "jargon"])
    assert all_files(tmp_path / "x") == all_files(tmp_path / "y")
    (tmp_path / "y/jargon.jsonl").write_bytes(b"cut")
    repository.add("python3.11-doc", {f"{DOC}/python3.11/html/a.html": page("new")}, version="1.0-2")
    repository.update()
    make_corpus(tmp_path / "y", sources="python,jargon")
    assert all_files(tmp_path / "x") == all_files(tmp_path / "y")
    told = make_corpus(tmp_path / "y", sources="python", force=True)
    assert [(s["name"], s["packages"][0]["version"]) for s in told["sources"]] == [
        ("python", "1.0-2"),
        ("jargon", "1.0-1"),
    ]
    assert [text for _, text in documents(tmp_path / "y/python.jsonl")] == ["new"]


def test_what_cannot_be_made(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    html = f"{DOC}/git-doc/a.html"
    damaged = repository.add("git-doc", {html: page("a")})
    gone = repository.add("sqlite3-doc", {f"{DOC}/sqlite3/a.html": page("a")})
    repository.add("perl-doc", {"usr/share/man/man1/perl.1.gz": b"not compressed"})
    repository.add("dict-gcide", {"usr/share/dictd/gcide.index": b"a\tA\tB\n"})
    repository.update()
    data = bytearray(damaged.read_bytes())
    data[-100] ^= 255
    damaged.write_bytes(data)
    gone.unlink()
    (tmp_path / "file").write_text("")
    cases = [
        ({"sources": "git"}, NetworkError, "apt-get: .*"),
        ({"sources": "sqlite"}, NetworkError, "apt-get: .*"),
        ({"sources": "perl"}, ModelFileError, "perl.1.gz is damaged"),
        ({"sources": "gcide"}, ModelFileError, "gcide.index: not in the form that gcide has"),
        ({"sources": "pyhton"}, UsageError, "sources must be one of python, .*Did you mean python"),
        ({"sources": "apache"}, UsageError, "apt has none of the packages. Run apt-get update first"),
        ({"out": tmp_path / "file"}, StorageError, "is a file, expected a folder"),
        ({"out": "/proc/nobody/x"}, StorageError, "/proc/nobody/x: cannot write: "),
        ({"out": tmp_path / ("x" * 300)}, StorageError, "xxx: cannot write: "),
    ]
    for options, kind, says in cases:
        with pytest.raises(kind, match=says) as caught:
            make_corpus(**{"out": tmp_path / "x"} | options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "x").exists() or all_files(tmp_path / "x").keys() <= {"licenses/dict-gcide"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="apt-cache, apt-get, dpkg-deb not found: this needs Debian"):
        make_corpus(tmp_path / "x")


def test_the_command(pythia, repository: Repository, tmp_path: Path):
    code, out, err = pythia("data", "corpus", "--list", "--output-format", "json")
    assert code == 0, err
    listed = {s["name"]: [p["name"] for p in s["packages"]] for s in json.loads(out)["sources"]}
    assert listed.keys() == SOURCES.keys()
    assert (listed["python"], listed["manpages"], listed["linux"]) == (
        ["python3.11-doc"],
        ["manpages", "manpages-dev"],
        [],
    )
    code, out, err = pythia("data", "corpus", "-o", tmp_path / "x", "--sources", "jargon,linux")
    assert code == 0, err
    assert re.findall(r"^(?:jargon|left out).*", out, re.MULTILINE) == [
        f"jargon          1  {(tmp_path / 'x/jargon.jsonl').stat().st_size:>5}",
        "left out: apt has no package linux-doc-N.N",
    ]
    code, out, err = pythia("data", "corpus")
    assert (code, err) == (2, "Error: --out says where the corpus goes; without it there is only --list\n")


ENDED = """
import os, signal, sys
def hook(name, args):
    if name == "os.rename" and "jsonl" in str(args):
        os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(hook)
sys.argv = ["pythia", "data", "corpus", "-o", sys.argv[1]]
from pythia_gguf.cli.main import main
main()
"""


def test_a_run_that_is_ended_leaves_no_half_of_a_source(repository: Repository, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", ENDED, str(tmp_path / "x")], capture_output=True, text=True, timeout=HANGS_S
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert all_files(tmp_path / "x").keys() == {"licenses/python3.11-doc"}
    make_corpus(tmp_path / "x")
    make_corpus(tmp_path / "y")
    assert all_files(tmp_path / "x") == all_files(tmp_path / "y")


def test_entries_of_a_dictionary():
    """Two words for one entry, entries out of order, and one about the dictionary itself."""
    entries = ["00 about", "b: two\n", "a: \N{SNOWMAN}\n"]
    data = "".join(entries).encode()
    places = [(0, 8), (8, 7), (15, len(data) - 15)]

    def digits(n: int) -> str:
        return base64.b64encode(n.to_bytes(6, "big")).decode().lstrip("A") or "A"

    rows = [("00about", 0), ("a", 2), ("b", 1), ("bee", 1)]
    index = "".join(f"{word}\t{digits(places[i][0])}\t{digits(places[i][1])}\n" for word, i in rows)
    files = {"x.dict.dz": data, "x.index": index.encode()}
    assert [text for path in files for _, text in dictionary(path, files)] == entries[1:]


def test_books_are_verses_in_their_order():
    verses = [["In the <w>beginning</w>", "", "And <note>gone</note>the"], ["Adam", "Seth"]]
    files = {"ot.bzz": b"", "ot.bzs": b"", "ot.bzv": struct.pack("<IIH", 0, 0, 0)}
    for block, book in enumerate(verses):
        packed = zlib.compress("".join(book).encode())
        files["ot.bzs"] += struct.pack("<III", len(files["ot.bzz"]), len(packed), len("".join(book)))
        files["ot.bzz"] += packed
        at = 0
        for verse in book:
            files["ot.bzv"] += struct.pack("<IIH", block, at, len(verse))
            at += len(verse)
    assert [text for path in files for _, text in books(path, files)] == ["In the beginning\nAnd the", "Adam\nSeth"]
