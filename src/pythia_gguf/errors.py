"""Every exception a user can cause, in one tree; imports nothing.

    PythiaGGUFError         one line, an exit code
    |- UsageError        2  an option or a name that does not exist
    |- ModelFileError   65  a file that is damaged, hostile or of a kind we refuse
    |- NetworkError     69  the Hub cannot be reached, or says no
    |- StorageError     74  the disk: full, read-only, missing
    `- LockedError      75  another process is writing there

Programmer mistakes are ValueError and TypeError; our own are assertions.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class PythiaGGUFError(Exception):
    """Base of all errors that are shown to a user as one line."""

    exit_code = 1


class UsageError(PythiaGGUFError):
    """An option, quant, model or command that does not exist, or options that contradict each other."""

    exit_code = 2


class ModelFileError(PythiaGGUFError):
    """A model file that cannot be used: what rule it broke, where.

    path    the file
    field   what was being read ("header length", "tensor blk.0.attn_qkv.weight"), or None
    offset  position of the offending bytes from the start of the file, or None
    """

    exit_code = 65

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str],
        field: str | None = None,
        offset: int | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.field = field
        self.offset = offset
        where = [one_line(self.path)]
        if offset is not None:
            where.append(f"byte {offset}")
        if field is not None:
            where.append(one_line(field))
        super().__init__(": ".join([*where, one_line(message)]))


class NetworkError(PythiaGGUFError):
    """The Hub cannot be reached or refuses."""

    exit_code = 69


class StorageError(PythiaGGUFError):
    """Reading or writing failed: no space, no permission, no such folder."""

    exit_code = 74


class LockedError(PythiaGGUFError):
    """Another process is writing to the same place."""

    exit_code = 75


def one_line(text: str, limit: int = 300) -> str:
    """Text that is safe to print on one line: control characters escaped, cut at `limit` characters."""
    # Cut first: a message may quote millions of characters.
    text = text[: limit + 1]
    if text.isprintable() and len(text) <= limit:
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """A hint that names the closest known names, e.g. ". Did you mean Q4_K_M or Q4_K_S?"; "" when none is close."""
    by_lower = {k.lower(): k for k in known}
    close = [by_lower[k] for k in difflib.get_close_matches(name.lower(), list(by_lower), n=n, cutoff=0.5)]
    return f". Did you mean {' or '.join(close)}?" if close else ""
