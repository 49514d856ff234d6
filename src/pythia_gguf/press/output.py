"""A GGUF file while it is being written: front to back, each byte hashed on its way.

Knows neither weights nor formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pythia_gguf.files import storage_error, write_all
from pythia_gguf.gguf.container import padded


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
    """One file while it is being written: descriptor, running hash, size."""

    def __init__(self, output: OutputFile, file: BinaryIO) -> None:
        self.output = output
        self._file = file
        self._digest = hashlib.sha256()
        self.n_bytes = 0
        self.append(output.header)

    def append(self, data: bytes | memoryview) -> None:
        """Write and hash; raises StorageError when the disk refuses."""
        try:
            write_all(self._file, data)
        except OSError as e:
            raise storage_error(self.output.path, e) from e
        self._digest.update(data)
        self.n_bytes += len(data)

    def pad(self) -> None:
        """Zeros up to the alignment, after the last byte of a tensor."""
        self.append(bytes(padded(self.n_bytes, self.output.alignment) - self.n_bytes))

    @property
    def sha256(self) -> str:
        """Hash of all that was appended, 64 hexadecimal digits."""
        return self._digest.hexdigest()
