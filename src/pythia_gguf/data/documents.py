"""Documents in files that people have: lines of JSON, or one text in a file; each of them also compressed by Zstandard.

A line is an object with the document under "text", and its source under "meta", "pile_set_name", as in the Pile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import CHUNK_BYTES, RegularFile, write_all

SUFFIXES = (".jsonl", ".txt")
# What a line does that is no document: it stops the run, or is left out.
BROKEN = ("stop", "skip")
_PACKED = ".zst"
# Of lines that one process gets at once; a longer document comes alone.
_PIECE_BYTES = 1 << 20
_LONGEST = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some lines of a file.

    first  number of the first line, from 1 on
    lines  as they are in the file, without their ends
    end    of the last one, in bytes of the uncompressed file
    """

    first: int
    lines: list[bytes]
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text and where it comes from, "" where that is not said."""

    text: str
    source: str


def check_names(paths: list[Path]) -> None:
    """Raises UsageError for a file that is of no kind that is read."""
    for path in paths:
        if not path.name.removesuffix(_PACKED).endswith(SUFFIXES):
            kinds = " or ".join(SUFFIXES)
            raise UsageError(
                Argument("corpus"), f" must end with {kinds}, or that and {_PACKED}: {one_line(str(path))}"
            )


def is_lines(path: Path) -> bool:
    """Whether a file holds lines of JSON, not one text."""
    return path.name.removesuffix(_PACKED).endswith(".jsonl")


def read_pieces(path: Path, start: int = 0, first: int = 1) -> Iterator[Piece]:
    """The lines of a file from a place where one begins; a file of one text has one line, however many it has.

    Raises  StorageError, ModelFileError
    """
    rest, lines, n_bytes, end = bytearray(), [], 0, start
    for data in _blocks(path, start):
        rest += data
        if len(rest) > _LONGEST:
            raise ModelFileError(f"a document has more than {_LONGEST} bytes", path=path, offset=end)
        if not is_lines(path):
            continue
        *whole, last = rest.split(b"\n") if b"\n" in data else [rest]
        rest = bytearray(last)
        for line in whole:
            lines.append(bytes(line))
            n_bytes += len(line) + 1
            if n_bytes >= _PIECE_BYTES:
                end += n_bytes
                yield Piece(first=first, lines=lines, end=end)
                first, lines, n_bytes = first + len(lines), [], 0
    if rest or (not is_lines(path) and first == 1):
        lines.append(bytes(rest))
        n_bytes += len(rest)
    if lines:
        yield Piece(first=first, lines=lines, end=end + n_bytes)


def document_of(line: bytes, *, is_json: bool) -> Document:
    """The document of a line, or of a whole text; raises ValueError that says what is wrong with it."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"not UTF-8 text from byte {e.start} on") from None
    if not is_json:
        return Document(text=text, source="")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as e:
        raise ValueError(f"not JSON: {e}") from None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError('expected an object with a text under "text"')
    try:
        value["text"].encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no text") from None
    meta = value.get("meta")
    source = meta.get("pile_set_name") if isinstance(meta, dict) else None
    return Document(text=value["text"], source=source if isinstance(source, str) else "")


def documents_of(piece: Piece, *, is_json: bool) -> tuple[list[tuple[int, Document]], list[tuple[int, str]]]:
    """The documents of a piece, and its lines that are none with what is wrong with them, each with its number."""
    documents, broken = [], []
    for number, line in enumerate(piece.lines, piece.first):
        if is_json and not line.strip():
            continue
        try:
            documents.append((number, document_of(line, is_json=is_json)))
        except ValueError as e:
            broken.append((number, one_line(str(e), 200)))
    return documents, broken


def broken_line(path: Path, broken: list[tuple[int, str]]) -> ModelFileError:
    """What to raise for the first of some lines that are no documents."""
    line, why = broken[0]
    return ModelFileError(f"{why}. Mend it, or use ", Argument("broken", "skip"), path=path, field=f"line {line}")


def chosen_lines(path: Path, numbers: np.ndarray) -> Iterator[list[bytes]]:
    """Lines of a file by their numbers, which are in order, piece after piece.

    Raises  StorageError, ModelFileError; also where the file has become shorter
    """
    n_found = 0
    for piece in read_pieces(path):
        last = np.searchsorted(numbers, piece.first + len(piece.lines))
        yield [piece.lines[number - piece.first] for number in numbers[n_found:last].tolist()]
        n_found = int(last)
    if n_found < len(numbers):
        raise ModelFileError("became shorter while it was read", path=path)


@contextlib.contextmanager
def packed_as(path: Path, out: BinaryIO) -> Iterator[Callable[[bytes], None]]:
    """What writes to `out`, compressed where the name of `path` says so."""
    if path.suffix != _PACKED:
        yield lambda data: write_all(out, data)
        return
    import zstandard

    frame = zstandard.ZstdCompressor().compressobj()
    yield lambda data: write_all(out, frame.compress(data))
    write_all(out, frame.flush())


def _blocks(path: Path, start: int) -> Iterator[bytes | bytearray]:
    """The bytes of a file from a place in what it holds, uncompressed."""
    with RegularFile(path) as file:
        if path.suffix != _PACKED:
            for at in range(start, file.size, CHUNK_BYTES):
                yield file.read(at, min(CHUNK_BYTES, file.size - at))
            return
        for block in _unpacked(file, path):
            if start < len(block):
                yield block[start:]
            start = max(0, start - len(block))


def _unpacked(file: RegularFile, path: Path) -> Iterator[bytes]:
    """Frames of Zstandard one after the other; a file that ends inside one is damaged."""
    try:
        import zstandard
    except ImportError:
        raise UsageError(f"{one_line(str(path))} needs zstandard. Run: pip install 'pythia-gguf[data]'") from None

    frame = zstandard.ZstdDecompressor().decompressobj()
    is_inside = False
    for at in range(0, file.size, CHUNK_BYTES):
        data = bytes(file.read(at, min(CHUNK_BYTES, file.size - at)))
        while data:
            try:
                block, is_inside = frame.decompress(data), True
            except zstandard.ZstdError as e:
                raise ModelFileError(f"damaged: {e}. Download it again", path=path, offset=at) from None
            if block:
                yield block
            data = b""
            if frame.eof:
                data, is_inside = frame.unused_data, False
                frame = zstandard.ZstdDecompressor().decompressobj()
    if is_inside:
        raise ModelFileError("cut short: it ends inside a frame. Download it again", path=path, offset=file.size)
