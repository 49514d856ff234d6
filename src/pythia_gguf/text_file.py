"""Texts that a user gives: a mark at the beginning says how a text is encoded, and without a mark it is UTF-8.

A file that is no text is refused, because its numbers would mean nothing.
"""

from __future__ import annotations

import codecs
import os
from typing import NoReturn

from pythia_gguf.errors import ModelFileError

# UTF-32 first: its mark begins with the mark of UTF-16.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


def decode_text(data: bytes, path: str | os.PathLike[str]) -> str:
    """Decode bytes to text, without the mark at the beginning.

    path    where they come from, for messages
    Raises  ModelFileError for bytes that are not what their mark says (without one: UTF-8), or hold a zero character
    """
    mark, encoding = next((known for known in _ENCODINGS if data.startswith(known[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as e:
        _refuse(path, len(mark) + e.start, f"is not {encoding.upper()}", "iconv -f latin1 -t utf-8")
    if "\0" in text:
        offset = len(mark) + len(text[: text.index("\0")].encode(encoding))
        _refuse(path, offset, "is zero, as in binary files and UTF-16 without a mark", "iconv -f utf-16le -t utf-8")
    return text


def _refuse(path: str | os.PathLike[str], offset: int, what: str, command: str) -> NoReturn:
    raise ModelFileError(
        f"this byte {what}: not a text that can be read. If it is one in another encoding, convert it, as with"
        f" `{command}`",
        path=path,
        offset=offset,
    )
