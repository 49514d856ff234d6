"""Reads a header front to back and believes no length before holding it against the bytes that are left.

It reads strings and little-endian numbers, whatever they mean. The header is read in growing steps, so a small model
costs one read and a file of many GB never more than its header.
"""

from __future__ import annotations

import struct

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile
from pythia_gguf.gguf.container import HEADER_BYTES_MAX, N_STRINGS_MAX, STRING_BYTES_MAX

AGAIN = ". If the download was cut short, download it again"
_FIRST_BYTES = 256 << 10
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in the header of an open file.

    position        bytes from the start of the file
    field           what is being read, for error messages; the parser names it as it goes
    n_strings_left  how many more strings the arrays of this file may hold
    """

    def __init__(self, file: RegularFile) -> None:
        self.position = 0
        self.field = "header"
        self.n_strings_left = N_STRINGS_MAX
        self._file = file
        self._data = b""

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self._file.size - self.position

    def fault(self, message: str, offset: int | None = None) -> ModelFileError:
        """The error to raise about the bytes at `offset`, by default those just ahead."""
        return ModelFileError(
            message,
            path=self._file.path,
            field=self.field,
            offset=self.position if offset is None else offset,
        )

    def take(self, n_bytes: int) -> bytes:
        """The next bytes; raises ModelFileError when the file ends before."""
        stop = self.position + n_bytes
        self._load(stop)
        taken = self._data[self.position : stop]
        self.position = stop
        return taken

    def u32(self) -> int:
        """The next 4 bytes as a number."""
        return _U32.unpack(self.take(4))[0]

    def u64(self) -> int:
        """The next 8 bytes as a number."""
        return _U64.unpack(self.take(8))[0]

    def count(self, what: str, *, most: int, least_bytes: int) -> int:
        """A u64 that says how many of something follow, each of them at least `least_bytes` long.

        Raises ModelFileError when that is more than `most` or cannot fit into what is left of the file.
        """
        start = self.position
        n = self.u64()
        if n > most:
            raise self.fault(f"{n} {what} exceed the limit of {most}", start)
        if n * least_bytes > self.remaining:
            raise self.fault(f"{n} {what} need {n * least_bytes} bytes or more, {self.remaining} left{AGAIN}", start)
        return n

    def short_string(self, what: str, most: int) -> bytes:
        """A string of at most `most` bytes, undecoded: a key or a name, whose own rules come next."""
        start = self.position
        length = self.u64()
        self._check_length(what, length, start, most)
        return self.take(length)

    def strings(self, n: int) -> list[str]:
        """`n` strings in a row, decoded.

        This loop is the time a header takes: a Pythia vocabulary is 100 thousand strings.
        """
        values: list[str] = []
        append, unpack = values.append, _U64.unpack_from
        data, position, available = self._data, self.position, len(self._data)
        for _ in range(n):
            start = position + 8
            if start > available:
                data, available = self._load_more(position, 8)
            (length,) = unpack(data, position)
            stop = start + length
            if length > STRING_BYTES_MAX or stop > available:
                self.position = start
                self._check_length("string", length, position, STRING_BYTES_MAX)
                data, available = self._load_more(start, length)
            try:
                append(data[start:stop].decode())
            except UnicodeDecodeError as e:
                raise self.fault(f"string is not UTF-8: {e.reason}", start + e.start) from None
            position = stop
        self.position = position
        return values

    def _check_length(self, what: str, length: int, offset: int, most: int) -> None:
        if length > self.remaining:
            raise self.fault(f"{what} length {length} exceeds the {self.remaining} bytes left{AGAIN}", offset)
        if length > most:
            raise self.fault(f"{what} length {length} exceeds the limit of {most}", offset)

    def _load_more(self, position: int, n_bytes: int) -> tuple[bytes, int]:
        """Make sure of the `n_bytes` at `position`; returns the bytes now in memory and their number."""
        self.position = position
        self._load(position + n_bytes)
        return self._data, len(self._data)

    def _load(self, stop: int) -> None:
        """Have the file in memory up to `stop`, and some more ahead so that there are few reads."""
        have = len(self._data)
        if stop <= have:
            return
        if stop > self._file.size:
            need = stop - self.position
            raise self.fault(f"truncated: need {need} bytes, {self.remaining} left{AGAIN}")
        if stop > HEADER_BYTES_MAX:
            raise self.fault(f"header is larger than the limit of {HEADER_BYTES_MAX} bytes")
        want = min(max(stop, 2 * have, _FIRST_BYTES), HEADER_BYTES_MAX, self._file.size)
        self._data += self._file.read(have, want - have)
