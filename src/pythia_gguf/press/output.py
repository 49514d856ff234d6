"""A GGUF file while it is being written: front to back, past the page cache.

Gigabytes that are synced anyway gain nothing from the page cache, and filling it takes a good part of the processor
time that encoding takes (docs/log.md). So whole buffers go straight to the disk where the file system allows that.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pythia_gguf.files import bypass_cache, storage_error

# Bytes that are written at once, a multiple of every disk's sector.
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file to write.

    path       final name
    header     everything before the data
    formats    tensor name -> format; every tensor of the source
    alignment  bytes that each tensor is padded to
    """

    path: Path
    header: bytes
    formats: Mapping[str, str]
    alignment: int


class FileWriter:
    """One file while it is being written: descriptor, and the buffer that is written next."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Take a new, empty file, and the name that it will have in the end, for messages."""
        self._path, self._file = path, file
        self._buffer = np.frombuffer(mmap.mmap(-1, BUFFER_BYTES), np.uint8)  # begins on a page
        self._filled = 0
        self._is_direct = bypass_cache(file, on=True)

    def append(self, data: bytes | memoryview) -> None:
        """Write the bytes that follow, once a buffer is full; raises StorageError when the disk refuses."""
        left = np.frombuffer(data, np.uint8)
        while left.size:
            part = left[: BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + part.size] = part
            self._filled += part.size
            left = left[part.size :]
            if self._filled == BUFFER_BYTES:
                self._flush()

    def finish(self) -> None:
        """Write what is left in the buffer; raises StorageError when the disk refuses."""
        self._through_cache()  # the rest is no whole sector
        self._flush()

    def _flush(self) -> None:
        left = self._buffer[: self._filled].data
        self._filled = 0
        try:
            while len(left):
                left = left[self._write(left) :]
        except OSError as e:
            raise storage_error(self._path, e) from e

    def _write(self, data: memoryview) -> int:
        """Write as much as the file takes."""
        try:
            return self._file.write(data)
        except OSError as e:
            # The file system took the flag but not the write, or this is the rest of a write that took less.
            if not self._is_direct or e.errno != errno.EINVAL:
                raise
        self._through_cache()
        return self._file.write(data)

    def _through_cache(self) -> None:
        if self._is_direct:
            bypass_cache(self._file, on=False)
            self._is_direct = False
