"""What an earlier run has left in the output folder, and whether it may stay.

Knows no weights. A file stays when the manifest beside it says that it was made from the same source by the same
version, and it is, byte for byte, what the manifest says. Nothing that is not known is replaced without --force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pythia_gguf.errors import ModelFileError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.press.manifest import MANIFEST, SUMS, read_manifest
from pythia_gguf.press.menu import MenuItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The files of an earlier run, as its manifest tells of them.

    folder   where they are
    source   the manifest's entry for the source
    files    file name -> (bytes, SHA-256), as far as they exist with that size
    listed   names of all files of the manifest
    tensors  (tensor name, format) -> SHA-256 of its encoded bytes
    """

    folder: Path
    source: Any
    files: Mapping[str, tuple[int, str]]
    listed: frozenset[str]
    tensors: Mapping[tuple[str, str], str]
