"""Files of a package to documents: pages, manuals, texts, a dictionary of dictd, books of SWORD.

A form is a function of a path and all files of the source, path -> bytes, unpacked; it gives (name, text) of the
documents that this file has.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Mapping

from pythia_gguf.data.man_text import text_of_man
from pythia_gguf.data.page_text import text_of_page


def pages(path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """A page of HTML is a document."""
    yield path, text_of_page(_decoded(files[path]))


def manuals(path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """A page of a manual is a document."""
    yield path, text_of_man(_decoded(files[path]))


def texts(path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """A text is a document."""
    yield path, _decoded(files[path])


def dictionary(path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """An entry of a dictionary is a document: lines of NAME.index have a word, a place and a size in NAME.dict.dz."""
    if not path.endswith(".index"):
        return
    data = files[f"{path.removesuffix('index')}dict.dz"]
    # Words that begin with 00 tell of the dictionary itself; several words may lead to one entry.
    lines = [line.split("\t") for line in _decoded(files[path]).splitlines() if not line.startswith("00")]
    for at, size in sorted({(_number(at), _number(size)) for _, at, size, *_ in lines}):
        yield f"{path}:{at}", _decoded(data[at : at + size])


def books(path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """A book is a document: .bzz has blocks of zlib, .bzs their places, .bzv the block and place of each verse."""
    stem, dot, kind = path.rpartition(".bzs")
    if not dot or kind:
        return
    packed = files[f"{stem}.bzz"]
    blocks = [zlib.decompress(packed[at : at + size]) for at, size, _ in struct.iter_unpack("<III", files[path])]
    verses: dict[int, list[str]] = {}
    for block, at, size in struct.iter_unpack("<IIH", files[f"{stem}.bzv"]):
        if size:
            verses.setdefault(block, []).append(_decoded(blocks[block][at : at + size]))
    for block, found in sorted(verses.items()):
        yield f"{stem}:{block}", text_of_page("<br>".join(found))


def unpacked(path: str, data: bytes) -> bytes:
    """What a file holds that may be compressed by gzip; raises OSError, EOFError or zlib.error for a damaged one."""
    return gzip.decompress(data) if path.endswith((".gz", ".dz")) else data


_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _number(digits: str) -> int:
    """A number as dictd writes it, in digits of base 64."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value


def _decoded(data: bytes) -> str:
    """UTF-8, or else the encoding of older texts."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
