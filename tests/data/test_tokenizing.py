"""Ids of documents are those of the `tokenizers` library, each with its end, whatever the processes and kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from tokenizers import Tokenizer

from data import neox
from patience import HANGS_S
from pythia_gguf.data import documents as reading
from pythia_gguf.data import tokenizing
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.order import make_order, samples_for
from pythia_gguf.data.rows import open_rows, read_step
from pythia_gguf.data.token_file import TokenFile
from pythia_gguf.data.tokenizing import tokenize
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError
from pythia_gguf.files import RegularFile

TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
LIBRARY = Tokenizer.from_file(str(TOKENIZER))
EOD = LIBRARY.token_to_id("<|endoftext|>")
WORDS = [
    "def",
    " main",
    "(",
    "x",
    "):",
    "\n",
    "    ",
    "return",
    " é",
    "\N{SNOWMAN}",
    "<|endoftext|>",
    " the",
    "\t",
    "\0",
]
SOURCES = ["Pile-CC", "Github", None, "ArXiv"]


def texts(n: int, seed: int) -> list[tuple[str, str | None]]:
    """(text, source) of documents; some are empty."""
    rng = random.Random(seed)
    return [("".join(rng.choices(WORDS, k=rng.choice([0, 1, 5, 40, 300]))), rng.choice(SOURCES)) for _ in range(n)]


def lines_of(pairs: list[tuple[str, str | None]]) -> bytes:
    made = [{"text": text} | ({} if source is None else {"meta": {"pile_set_name": source}}) for text, source in pairs]
    return "".join(json.dumps(entry, ensure_ascii=bool(i % 2)) + "\n" for i, entry in enumerate(made)).encode()


def expected_ids(pairs: list[tuple[str, str | None]]) -> list[list[int]]:
    return [[*LIBRARY.encode(text).ids, EOD] for text, _ in pairs if text]


def corpus_files(folder: Path) -> tuple[list[Path], list[tuple[str, str | None]]]:
    """Lines, lines in two frames of Zstandard without an end of the last line, and a text; and what is in them."""
    first, second = texts(60, 1), texts(50, 2)
    (folder / "a.jsonl").write_bytes(b"\n" + lines_of(first) + b"  \r\n")
    data, pack = lines_of(second).rstrip(b"\n"), zstandard.ZstdCompressor().compress
    (folder / "b.jsonl.zst").write_bytes(pack(data[:1000]) + pack(data[1000:]))
    (folder / "c.txt").write_bytes(b"one text\nof two lines\n")
    return [folder / n for n in ("a.jsonl", "b.jsonl.zst", "c.txt")], [
        *first,
        *second,
        ("one text\nof two lines\n", None),
    ]


def made(prefix: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in prefix.parent.glob(f"{prefix.name}.*")}


def test_ids_and_sources_are_those_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where a piece is a single line, and a block ends inside a character."""
    paths, pairs = corpus_files(tmp_path)
    expected, with_text = expected_ids(pairs), [pair for pair in pairs if pair[0]]
    for turn, (piece, block) in enumerate(((1 << 20, 1 << 20), (1, 7), (300, 64))):
        monkeypatch.setattr(reading, "_PIECE_BYTES", piece)
        monkeypatch.setattr(reading, "CHUNK_BYTES", block)
        told = tokenize(paths, tmp_path / f"x{turn}", tokenizer=TOKENIZER, processes=1)
        with TokenFile(tmp_path / f"x{turn}") as tokens:
            assert [tokens.read(i).tolist() for i in range(tokens.n_sequences)] == expected
            assert tokens.starts == len(expected) + 1
        names = [entry["name"] for entry in told["sources"]]
        labels = np.load(tmp_path / f"x{turn}.sources.npy")
        assert [names[i] for i in labels] == [source or "" for _, source in with_text]
        for entry in told["sources"]:
            own = [ids for ids, (_, s) in zip(expected, with_text, strict=True) if (s or "") == entry["name"]]
            assert (entry["documents"], entry["tokens"]) == (len(own), sum(map(len, own)))
        assert (told["n_documents"], told["n_empty"]) == (len(expected), len(pairs) - len(expected))
        assert told["n_tokens"] == sum(map(len, expected))
    assert not (tmp_path / ".x0.unfinished").exists()
    (first, second, third) = ({name[2:]: data for name, data in made(tmp_path / f"x{i}").items()} for i in range(3))
    assert first == second == third


def test_no_byte_depends_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths, _ = corpus_files(tmp_path)
    monkeypatch.setattr(reading, "_PIECE_BYTES", 500)
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        tokenize(paths, tmp_path / str(n) / "x", tokenizer=TOKENIZER, processes=n)
    assert made(tmp_path / "1" / "x") == made(tmp_path / "2" / "x")


@pytest.mark.parametrize("at", [1, 4, 9, 15])
def test_a_run_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int):
    """It ends while it writes; what was saved is not encoded again, and the result is that of a run in one go."""
    paths, _ = corpus_files(tmp_path)
    monkeypatch.setattr(reading, "_PIECE_BYTES", 500)
    monkeypatch.setattr(tokenizing, "_SAVE_BYTES", 1000)
    (tmp_path / "whole").mkdir()
    tokenize(paths, tmp_path / "whole" / "x", tokenizer=TOKENIZER, processes=1)
    append, n_appended = GrowingFiles.append, []

    def until(self: GrowingFiles, name: str, data: bytes) -> None:
        n_appended.append(name)
        if len(n_appended) == 3 * at + at % 3:
            raise KeyboardInterrupt
        append(self, name, data)

    (tmp_path / "cut").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(GrowingFiles, "append", until)
        with pytest.raises(KeyboardInterrupt):
            tokenize(paths, tmp_path / "cut" / "x", tokenizer=TOKENIZER, processes=1)
    assert made(tmp_path / "cut" / "x") == {}
    encoded = []
    encode = tokenizing.PieceEncoder.encode

    def noting(self: tokenizing.PieceEncoder, piece: reading.Piece, is_json: bool) -> tokenizing.EncodedPiece:
        encoded.append(piece.first)
        return encode(self, piece, is_json)

    monkeypatch.setattr(tokenizing.PieceEncoder, "encode", noting)
    tokenize(paths, tmp_path / "cut" / "x", tokenizer=TOKENIZER, processes=1)
    assert made(tmp_path / "cut" / "x") == made(tmp_path / "whole" / "x")
    n_again = len(encoded)
    (tmp_path / "again").mkdir()
    tokenize(paths, tmp_path / "again" / "x", tokenizer=TOKENIZER, processes=1)
    assert (n_again < len(encoded) - n_again) is (at > 1)


@pytest.mark.parametrize("block", [3, 50, 1 << 20])
def test_a_packed_file_is_read_on_from_the_nearest_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int):
    """From the end of any piece come the lines behind it, and nothing in front of its frame is read."""
    pairs = texts(60, 4)
    lines, pack = lines_of(pairs).splitlines(keepends=True), zstandard.ZstdCompressor().compress
    frames = [pack(b"".join(lines[at : at + 9])) for at in range(0, len(lines), 9)]
    begins = [sum(map(len, frames[:i])) for i in range(len(frames))]
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(frames))
    monkeypatch.setattr(reading, "_PIECE_BYTES", 300)
    monkeypatch.setattr(reading, "CHUNK_BYTES", block)
    whole = [piece for piece in reading.read_pieces(path) if piece.lines]
    assert b"".join(line + b"\n" for piece in whole for line in piece.lines) == b"".join(lines)
    assert sum(piece.n_read for piece in reading.read_pieces(path)) == path.stat().st_size
    read, starts = RegularFile.read, []

    def noting(self: RegularFile, offset: int, n_bytes: int) -> bytearray:
        starts.append(offset)
        return read(self, offset, n_bytes)

    monkeypatch.setattr(RegularFile, "read", noting)
    for i, piece in enumerate(whole[:-1]):
        starts.clear()
        again = [piece for piece in reading.read_pieces(path, piece.end) if piece.lines]
        assert [(p.first, p.lines) for p in again] == [(p.first, p.lines) for p in whole[i + 1 :]]
        # Where a frame begins with the next line, that is known only once the frame has been looked into.
        i_line = piece.end.line - 1
        assert starts[0] == reading.n_before(path, piece.end)
        assert starts[0] in {begins[i_line // 9], begins[(i_line - 1) // 9]}


def test_whatever_zstandard_makes_is_read(tmp_path: Path):
    """Frames to be skipped, as seekable files have them, empty ones, and windows of a gigabyte (zstd --long=30)."""
    line, pack = lines_of([("one", None)]), zstandard.ZstdCompressor().compress
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"table"
    wide = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    files = {"a": skipped + pack(line) + skipped + pack(line), "b": pack(b"") + pack(line), "c": b"", "d": pack(b"")}
    files["e"] = stream.compress(line) + stream.flush()
    found = {}
    for name, data in files.items():
        path = tmp_path / f"{name}.jsonl.zst"
        path.write_bytes(data)
        found[name] = b"".join(each + b"\n" for piece in reading.read_pieces(path) for each in piece.lines)
    assert found == {"a": line + line, "b": line, "c": b"", "d": b"", "e": line}


ONE_CORE = """
import os, sys
from pathlib import Path
from pythia_gguf.data.tokenizing import tokenize
os.environ.pop("TOKENIZERS_PARALLELISM", None)
before = len(os.listdir("/proc/self/task"))
tokenize(sys.argv[1:2], sys.argv[2], tokenizer=sys.argv[3], processes=1)
assert "TOKENIZERS_PARALLELISM" not in os.environ
print(len(os.listdir("/proc/self/task")) - before)
"""
KILLED = """
import os, signal, sys
from pythia_gguf.data import documents
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.tokenizing import tokenize
if __name__ == "__main__":
    documents._PIECE_BYTES = 200
    GrowingFiles.append = lambda *what: os.kill(os.getpid(), signal.SIGKILL)
    tokenize(sys.argv[1:2], sys.argv[2], tokenizer=sys.argv[3], processes=2)
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program that tokenizes a corpus; waits until all that it started has closed its streams, that is, has ended."""
    (folder / "program.py").write_text(code)
    (folder / "a.jsonl").write_bytes(lines_of(texts(300, 5)))
    line = [sys.executable, folder / "program.py", folder / "a.jsonl", folder / "x", TOKENIZER]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=HANGS_S)


def test_one_process_takes_one_core(tmp_path: Path):
    """The library would start a thread for each CPU."""
    done = run(ONE_CORE, tmp_path)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_processes_end_when_their_parent_is_killed(tmp_path: Path):
    """It kills itself when the first ids come back, so others are at work then."""
    done = run(KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    tokenize([tmp_path / "a.jsonl"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)


class Heard:
    """Progress that adds up what it hears."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def stage(self, name: str, total: int, unit: str) -> None:
        self.total, self.done = total, 0

    def advance(self, what: str, n: int) -> None:
        self.done += n


def test_progress_ends_at_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also of packed files, which hold more than they are long, and of a run that goes on."""
    paths, _ = corpus_files(tmp_path)
    monkeypatch.setattr(reading, "_PIECE_BYTES", 500)
    monkeypatch.setattr(tokenizing, "_SAVE_BYTES", 1000)
    move = GrowingFiles.move

    def once(self: GrowingFiles, name: str, place: Path) -> None:
        monkeypatch.setattr(GrowingFiles, "move", move)
        raise KeyboardInterrupt

    monkeypatch.setattr(GrowingFiles, "move", once)
    for _ in range(2):
        heard = Heard()
        with contextlib.suppress(KeyboardInterrupt):
            tokenize(paths, tmp_path / "x", tokenizer=TOKENIZER, processes=1, progress=heard)
        assert (heard.done, heard.total) == (sum(path.stat().st_size for path in paths),) * 2


BAD = {
    b'{"text": 1}': 'expected an object with a text under "text"',
    b"[]": 'expected an object with a text under "text"',
    b'{"text": "a"': "not JSON: ",
    b'{"text": "\xff"}': "not UTF-8 text from byte 10 on",
    b'{"text": "\\ud800"}': "half of a surrogate pair",
    b"[" * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: bytes):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([("one", None), ("two", None)]) + line + b"\n" + lines_of([("three", None)]))
    says = f"{re.escape(f'{path}: line 3: {BAD[line]}')}.*Mend it, or use broken='skip'"
    with pytest.raises(ModelFileError, match=says):
        tokenize([path], tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    assert made(tmp_path / "x") == {}
    told = tokenize([path], tmp_path / "x", tokenizer=TOKENIZER, processes=1, broken="skip")
    assert [(entry["file"], entry["line"]) for entry in told["left_out"]] == [("a.jsonl", 3)]
    with TokenFile(tmp_path / "x") as tokens:
        assert tokens.read(2).tolist() == [*LIBRARY.encode("three").ids, EOD]


def test_what_cannot_be_tokenized(tmp_path: Path):
    packed = zstandard.ZstdCompressor().compress(lines_of(texts(20, 3)))
    for name, data in (
        ("cut.jsonl.zst", packed[:-3]),
        ("bad.jsonl.zst", b"not Zstandard at all"),
        ("empty.jsonl", b"\n"),
        ("a.csv", b"x"),
        ("more.jsonl.zst", packed + b"more"),
    ):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "fifo.jsonl")
    good = tmp_path / "good.txt"
    good.write_bytes(b"good")
    cases: list[tuple[list[Path], dict[str, object], type[PythiaGGUFError], str]] = [
        ([tmp_path / "cut.jsonl.zst"], {}, ModelFileError, "cut short: it ends inside a frame"),
        ([tmp_path / "bad.jsonl.zst"], {}, ModelFileError, "byte 0: damaged: "),
        ([tmp_path / "more.jsonl.zst"], {}, ModelFileError, "byte 0: damaged: "),
        ([tmp_path / "folder.jsonl"], {}, ModelFileError, "folder.jsonl: not a regular file"),
        ([tmp_path / "fifo.jsonl"], {}, ModelFileError, "fifo.jsonl: not a regular file"),
        ([tmp_path / "empty.jsonl"], {}, UsageError, "corpus holds no document"),
        ([tmp_path / "a.csv"], {}, UsageError, "corpus must end with .jsonl or .txt, or that and .zst: "),
        ([tmp_path / "none.jsonl"], {}, StorageError, "none.jsonl: cannot open"),
        ([good], {"eod": "<end>"}, UsageError, "has no token '<end>'"),
        ([good], {"processes": 0}, UsageError, "processes must be at least 1, got 0"),
        ([good], {"broken": "keep"}, UsageError, "broken must be one of stop, skip, got 'keep'"),
        ([good], {"tokenizer": tmp_path / "none.json"}, StorageError, "none.json: cannot open"),
    ]
    for paths, options, kind, says in cases:
        with pytest.raises(kind, match=re.escape(says)):
            tokenize(paths, tmp_path / "x", **{"tokenizer": TOKENIZER, "processes": 1} | options)  # type: ignore
        assert made(tmp_path / "x") == {}
    with pytest.raises(StorageError, match="not a file in a folder that exists"):
        tokenize([good], tmp_path / "none" / "x", tokenizer=TOKENIZER)


def test_tokens_that_are_there_stay(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    told = tokenize([tmp_path / "a.txt"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    stamp = (tmp_path / "x.bin").stat().st_mtime_ns
    assert tokenize([tmp_path / "a.txt"], tmp_path / "x", tokenizer=TOKENIZER, processes=1) == told
    with pytest.raises(UsageError, match="other tokens are there. Choose another out, or use force=True"):
        tokenize([tmp_path / "b.txt"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    assert (tmp_path / "x.bin").stat().st_mtime_ns == stamp
    tokenize([tmp_path / "b.txt"], tmp_path / "x", tokenizer=TOKENIZER, processes=1, force=True)
    with TokenFile(tmp_path / "x") as tokens:
        assert tokens.read(0).tolist() == [*LIBRARY.encode("text b").ids, EOD]


@pytest.mark.parametrize("seed", [1, 2])
def test_from_text_to_what_a_step_saw(pythia, tmp_path: Path, seed: int):
    """Two corpora: text -> ids -> order -> the rows of a step, as the loops of GPT-NeoX give them, and as text."""
    pairs = texts(80, seed)
    (tmp_path / "a.jsonl").write_bytes(lines_of(pairs))
    line = ("data", "tokenize", tmp_path / "a.jsonl", "--tokenizer", TOKENIZER, "-o", tmp_path / "x")
    code, out, err = pythia(*line, "--processes", "1")
    assert code == 0, err
    ids = expected_ids(pairs)
    assert out.splitlines()[-2].split() == ["all", f"{len(ids):,}", f"{sum(map(len, ids)):,}"]
    make_order(tmp_path / "x", steps=6, batch=4, context=32, seed=seed)
    expected = neox.rows(ids, 32, samples_for(6, 4), seed)
    rows = open_rows(tmp_path / "x")
    assert read_step(rows, 3, 4)[1].tolist() == expected[8:12]
    rows.close()
    code, out, err = pythia("data", "view", tmp_path / "x", "--step", "3", "--row", "1", "--batch", "4")
    parts = [line for line in out.splitlines() if re.match(r"--- \d+ tokens from token \d+ of document \d+: ", line)]
    text = LIBRARY.decode(expected[9], skip_special_tokens=False)
    assert (code, out) == (0, "\n".join(["--- step 3, row 9", *parts, text, ""])), err
    assert sum(int(part.split()[1]) for part in parts) == 33


def test_each_part_of_a_row_has_its_document_and_source(pythia, tmp_path: Path):
    pairs = texts(60, 7)
    (tmp_path / "a.jsonl").write_bytes(lines_of(pairs))
    tokenize([tmp_path / "a.jsonl"], tmp_path / "x", tokenizer=TOKENIZER, processes=1)
    make_order(tmp_path / "x", steps=6, batch=4, context=32)
    ids, names = expected_ids(pairs), [source or "" for text, source in pairs if text]
    for step in range(1, 7):
        line = ("data", "view", tmp_path / "x", "--step", step, "--batch", "4", "--output-format", "json", "--ids")
        code, out, err = pythia(*map(str, line))
        assert code == 0, err
        for row in json.loads(out)["rows"]:
            parts = [(p["document"], p["first"], p["n_tokens"]) for p in row["documents"]]
            assert [i for d, first, n in parts for i in ids[d][first : first + n]] == row["ids"]
            assert [p["source"] for p in row["documents"]] == [names[d] for d, _, _ in parts]
            assert all(n > 0 for _, _, n in parts)
