"""Every exception a user can cause, in one tree; imports nothing.

    PythiaGGUFError         one line, an exit code
    |- UsageError        2  an option or a name that does not exist
    |- ModelFileError   65  a file that is damaged, hostile or of a kind we refuse
    |  `- NotFiniteError    a weight, or what a model computes, is infinity or NaN
    |- NetworkError     69  the Hub cannot be reached, or says no
    |- StorageError     74  the disk: full, read-only, missing
    `- LockedError      75  another process is writing there

A command ends with 128 + n when signal n ended it (130 after Ctrl-C), and with 71 when memory was short.
Programmer mistakes are ValueError and TypeError; our own are assertions.

A message names an argument as `Argument`, not as text: in Python it is said as it is written there (`max_tokens`,
`force=True`), and every other face says it in its own words (`--max-tokens`, `--force`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from typing import Any, Self


class Argument:
    """An argument of a public function, in a message.

    name   as in Python
    value  that is meant, as in "use force=True"; None: the argument itself
    """

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: object = None) -> None:
        self.name, self.value = name, value

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value!r}"


# The text of one part of a message.
_MOST_CHARS = 900
# A tuple is a clause that is left out where one of its arguments does not exist.
Part = str | Argument | tuple[str | Argument, ...]


class PythiaGGUFError(Exception):
    """Base of all errors that are shown to a user as one line.

    parts  of the message: text, arguments, and clauses about arguments
    place  in a longer run where it happened, such as "task piqa"; "" where it is not known
    """

    exit_code = 1
    place = ""

    def __init__(self, *parts: Part) -> None:
        """Whatever the parts quote, the message is one line that is safe to print."""
        self.parts = tuple(one_line(part, _MOST_CHARS) if isinstance(part, str) else part for part in parts)
        super().__init__(_joined(self.parts, str))

    @property
    def argument(self) -> str | None:
        """The argument that is at fault, where the message begins with it."""
        first = self.parts[0] if self.parts else None
        return first.name if isinstance(first, Argument) else None

    def said(self, name_of: Callable[[Argument], str | None]) -> str:
        """The message with arguments named another way; None from `name_of` where there is no such argument."""
        return _joined(self.parts, name_of) + (f" ({self.place})" if self.place else "")

    def within(self, place: str) -> Self:
        """The same error, with its place in a longer run."""
        self.place = place
        self.args = (self.said(str),)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[PythiaGGUFError], args: tuple[str, ...], state: dict[str, Any]) -> PythiaGGUFError:
    """Rebuild an error that came from another process."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _joined(parts: Iterable[Part], name_of: Callable[[Argument], str | None]) -> str:
    said = ""
    for part in parts:
        if isinstance(part, tuple):
            if not any(isinstance(p, Argument) and name_of(p) is None for p in part):
                said += _joined(part, name_of)
        else:
            said += part if isinstance(part, str) else name_of(part) or str(part)
    return said


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
        *parts: Part,
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
        shown = [one_line(part) if isinstance(part, str) else part for part in parts]
        super().__init__(": ".join([*where, ""]), *shown)


class NotFiniteError(ModelFileError):
    """A weight that is infinity or NaN, or a model whose numbers become so.

    position  of the token after which it was seen, counted from 0 in its sequence; None: it is a weight
    """

    def __init__(
        self,
        *parts: Part,
        path: str | os.PathLike[str],
        field: str | None = None,
        offset: int | None = None,
        position: int | None = None,
    ) -> None:
        self.position, self.what = position, parts
        super().__init__(*parts, path=path, field=field, offset=offset)

    def within(self, where: str) -> NotFiniteError:
        """The same, with the part of a text that `position` counts in."""
        return NotFiniteError(
            f"{where}: ", *self.what, path=self.path, field=self.field, offset=self.offset, position=self.position
        )


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
