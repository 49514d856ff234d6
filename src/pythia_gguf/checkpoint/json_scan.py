"""Reads JSON from left to right and keeps only what its caller asks for.

Knows nothing of tensors or files. `json.loads` is not used on whole documents: it keeps the last of two equal keys,
recurses as deep as the input says, and builds every object before anyone can refuse it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pythia_gguf.errors import ModelFileError

_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]+")
_LITERAL = re.compile(rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_SKIP_DEPTH = 4


class JsonScan:
    """A position in JSON text that only moves forward; every method skips the white space before it.

    data   the text, UTF-8
    path   the file it came from, for messages
    start  position of the text in that file, for messages
    """

    def __init__(self, data: bytes | bytearray, *, path: Path, start: int = 0) -> None:
        self._data = bytes(data)
        self._path = path
        self._start = start
        self.position = 0

    def error(self, message: str, position: int | None = None) -> ModelFileError:
        """A refusal that points at `position`, or at where the scan stands."""
        at = self.position if position is None else position
        return ModelFileError(message, path=self._path, offset=self._start + at)

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the caller reads the value of each before it asks for the next.

        Raises ModelFileError for a key that appears twice: two readers could see two different files.
        """
        seen: set[str] = set()
        self._expect(b"{")
        if self._next_is(b"}"):
            return
        while True:
            at = self.position
            key = self.string()
            if key in seen:
                raise self.error(f"key {key[:80]!r} appears twice", at)
            seen.add(key)
            self._expect(b":")
            yield key
            if self._next_is(b"}"):
                return
            self._expect(b",")

    def elements(self) -> Iterator[int]:
        """Yield the indices of an array; the caller reads each element before it asks for the next."""
        self._expect(b"[")
        if self._next_is(b"]"):
            return
        index = 0
        while True:
            yield index
            if self._next_is(b"]"):
                return
            self._expect(b",")
            index += 1

    def string(self) -> str:
        """A string, escapes resolved."""
        self._expect(b'"')
        first = self.position - 1
        while (stop := self._found(_PLAIN)) == b"\\":
            self.position += 2
        if stop != b'"':
            raise self.error("string has no end, or a control character in it", first)
        self.position += 1
        try:
            value = json.loads(self._data[first : self.position].decode("utf-8"))
        except ValueError as e:
            raise self.error("string is not valid UTF-8, or has an unknown escape", first) from e
        return str(value)

    def integers(self, most: int) -> tuple[int, ...]:
        """An array of at most `most` whole numbers, each 0 to 10**19 - 1."""
        first = self.position
        found: list[int] = []
        for index in self.elements():
            if index == most:
                raise self.error(f"expected at most {most} numbers", first)
            found.append(self._integer())
        return tuple(found)

    def skip(self, depth: int = _MAX_SKIP_DEPTH) -> None:
        """Step over any value; raises ModelFileError when it is nested deeper than `depth`."""
        start = self._peek()
        if start in (b"{", b"[") and depth == 0:
            raise self.error("nested too deeply")
        if start == b"{":
            for _ in self.members():
                self.skip(depth - 1)
        elif start == b"[":
            for _ in self.elements():
                self.skip(depth - 1)
        elif start == b'"':
            self.string()
        elif found := _LITERAL.match(self._data, self.position):
            self.position = found.end()
        else:
            raise self.error(f"expected a value, got {self._shown()}")

    def end(self) -> None:
        """Raise ModelFileError unless only white space is left."""
        if self._peek():
            raise self.error(f"expected nothing after the closing brace, got {self._shown()}")

    def _integer(self) -> int:
        self._peek()
        found = _DIGITS.match(self._data, self.position)
        if not found:
            raise self.error(f"expected a whole number, 0 or more, got {self._shown()}")
        n_digits = found.end() - found.start()
        if n_digits > 19:
            raise self.error(f"number of {n_digits} digits is too large")
        if n_digits > 1 and found[0].startswith(b"0"):
            raise self.error("number starts with 0")
        self.position = found.end()
        return int(found[0])

    def _peek(self) -> bytes:
        return self._found(_SPACE)

    def _found(self, run: re.Pattern[bytes]) -> bytes:
        """Move over a run that may be empty; the byte that stands after it, b"" at the end."""
        match = run.match(self._data, self.position)
        self.position = match.end() if match else self.position
        return self._data[self.position : self.position + 1]

    def _next_is(self, char: bytes) -> bool:
        if self._peek() != char:
            return False
        self.position += 1
        return True

    def _expect(self, char: bytes) -> None:
        if not self._next_is(char):
            raise self.error(f"expected {char.decode()!r}, got {self._shown()}")

    def _shown(self) -> str:
        got = self._data[self.position : self.position + 1]
        return repr(got.decode("ascii", "backslashreplace")) if got else "the end"
