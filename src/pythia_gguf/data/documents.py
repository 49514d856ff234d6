"""Documents in files that people have: lines of JSON, or one text in a file; each of them also compressed by Zstandard.

A line is an object with the document under "text", and its source under "meta", "pile_set_name", as in the Pile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import CHUNK_BYTES, RegularFile, write_all

SUFFIXES = (".jsonl", ".txt")
# What a line does that is no document: it stops the run, or is left out.
BROKEN = ("stop", "skip")
_PACKED = ".zst"
# Of lines that one process gets at once; a longer document comes alone. With larger ones, others wait for the last.
_PIECE_BYTES = 1 << 18
_LONGEST = 1 << 30
# What `zstd --long=31` makes, as large corpora are packed; memory is taken only for files that need it.
_MOST_WINDOW = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a line begins.

    line   its number, from 1 on
    at     bytes before it, uncompressed
    frame  (place in the file, bytes before it uncompressed) of a frame of Zstandard that begins there or before
    """

    line: int = 1
    at: int = 0
    frame: tuple[int, int] = (0, 0)

    @staticmethod
    def restored(saved: Mapping[str, Any]) -> Place:
        """A place that was saved as JSON, field by field."""
        return Place(line=saved["line"], at=saved["at"], frame=tuple(saved["frame"]))


_BEGINNING = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some lines of a file.

    first   number of the first line, from 1 on
    lines   as they are in the file, without their ends
    end     the place behind them
    n_read  bytes of the file, as it lies on the disk, that have been read for them since the last piece
    """

    first: int
    lines: list[bytes]
    end: Place
    n_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text and where it comes from, "" where that is not said."""

    text: str
    source: str


def check_names(paths: list[Path]) -> None:
    """Raises UsageError for a file that is of no kind that is read."""
    for path in paths:
        if not is_corpus(path):
            kinds = " or ".join(SUFFIXES)
            raise UsageError(
                Argument("corpus"), f" must end with {kinds}, or that and {_PACKED}: {one_line(str(path))}"
            )


def is_corpus(path: Path) -> bool:
    """Whether a file has the name of one that is read."""
    return path.name.removesuffix(_PACKED).endswith(SUFFIXES)


def size_of(path: Path) -> int:
    """Bytes of a regular file; raises StorageError, ModelFileError."""
    with RegularFile(path) as file:
        return file.size


def is_lines(path: Path) -> bool:
    """Whether a file holds lines of JSON, not one text."""
    return path.name.removesuffix(_PACKED).endswith(".jsonl")


def n_before(path: Path, place: Place) -> int:
    """Bytes of a file, as it lies on the disk, that need not be read to go on from a place."""
    return place.frame[0] if path.suffix == _PACKED else place.at


def read_pieces(path: Path, start: Place = _BEGINNING) -> Iterator[Piece]:
    """The lines of a file from a place on; a file of one text has one line, however many it has.

    Before the first line there may be pieces without any, which say how much has been read to find the place.
    Raises  StorageError, ModelFileError
    """
    rest, lines = bytearray(), list[bytes]()
    line, at, n_bytes, n_read = start.line, start.at, 0, 0
    frames = [start.frame]

    def piece() -> Piece:
        nonlocal line, at, n_bytes, n_read, lines
        first, line, at = line, line + len(lines), at + n_bytes
        # The last frame that begins before the next line.
        while len(frames) > 1 and frames[1][1] <= at:
            del frames[0]
        made = Piece(first=first, lines=lines, end=Place(line=line, at=at, frame=frames[0]), n_read=n_read)
        lines, n_bytes, n_read = [], 0, 0
        return made

    for block in _blocks(path, start):
        n_read += block.n_read
        if block.frame != frames[-1]:
            frames.append(block.frame)
        if not block.data and n_read >= _PIECE_BYTES:
            yield piece()
        rest += block.data
        if len(rest) > _LONGEST:
            raise ModelFileError(f"a document has more than {_LONGEST} bytes", path=path, offset=at + n_bytes)
        if not is_lines(path) or b"\n" not in block.data:
            continue
        *whole, last = rest.split(b"\n")
        rest = bytearray(last)
        for each in whole:
            lines.append(bytes(each))
            n_bytes += len(each) + 1
            if n_bytes >= _PIECE_BYTES:
                yield piece()
    if rest or (not is_lines(path) and start.line == 1):
        lines.append(bytes(rest))
        n_bytes += len(rest)
    if lines or n_read:
        yield piece()


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
        chosen = numbers[n_found : np.searchsorted(numbers, piece.first + len(piece.lines))].tolist()
        if chosen:
            yield [piece.lines[number - piece.first] for number in chosen]
        n_found += len(chosen)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Bytes of a file, uncompressed, which may be none; the frame that they are in; and how much was read for them."""

    data: bytes | bytearray
    frame: tuple[int, int]
    n_read: int


def _blocks(path: Path, start: Place) -> Iterator[_Block]:
    """What a file holds from a place on."""
    with RegularFile(path) as file:
        if path.suffix != _PACKED:
            for at in range(start.at, file.size, CHUNK_BYTES):
                data = file.read(at, min(CHUNK_BYTES, file.size - at))
                yield _Block(data=data, frame=(0, 0), n_read=len(data))
            return
        skip = start.at - start.frame[1]
        for block in _unpacked(file, path, start.frame):
            yield replace(block, data=block.data[skip:]) if skip else block
            skip = max(0, skip - len(block.data))


def _unpacked(file: RegularFile, path: Path, frame: tuple[int, int]) -> Iterator[_Block]:
    """Frames of Zstandard from one on, one after the other; a file that ends inside one is damaged."""
    try:
        import zstandard
    except ImportError:
        raise UsageError(f"{one_line(str(path))} needs zstandard. Run: pip install 'pythia-gguf[data]'") from None

    start, end = frame
    library = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
    unpacker = library.decompressobj()
    is_inside = False
    for at in range(start, file.size, CHUNK_BYTES):
        data = bytes(file.read(at, min(CHUNK_BYTES, file.size - at)))
        next_at, n_read = at + len(data), len(data)
        while data:
            try:
                block, is_inside = unpacker.decompress(data), True
            except zstandard.ZstdError as e:
                raise ModelFileError(f"damaged: {e}. Download it again", path=path, offset=at) from None
            end += len(block)
            yield _Block(data=block, frame=frame, n_read=n_read)
            data, n_read = b"", 0
            if unpacker.eof:
                data, is_inside = unpacker.unused_data, False
                frame = (next_at - len(data), end)
                unpacker = library.decompressobj()
    if is_inside:
        raise ModelFileError("cut short: it ends inside a frame. Download it again", path=path, offset=file.size)
