"""Hashes of every file that a result depends on, for the manifest and the card.

A file that is read from the Hub has the hash that the Hub lists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pythia_gguf.checkpoint.checkpoint import iter_file_checked
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import sha256_of
from pythia_gguf.press.source import Source
from pythia_gguf.progress import Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that a result depends on: its name, size and SHA-256."""

    name: str
    n_bytes: int
    sha256: str

    @property
    def entry(self) -> dict[str, Any]:
        """The file's entry in a manifest."""
        return {"file": self.name, "bytes": self.n_bytes, "sha256": self.sha256}


def hash_source(source: Source, progress: Progress) -> tuple[SourceFile, ...]:
    """Hash every file of a source; first come files that are not on this machine, with the hashes that the Hub lists.

    Raises ModelFileError for a file of huggingface_hub's cache whose content is not as its name says, StorageError
    """
    elsewhere = source.elsewhere
    with_sizes = [(path, path.stat().st_size) for path in source.files if path not in elsewhere]
    progress.stage("hashing the source", sum(n for _, n in with_sizes), "bytes")
    hashed = [
        SourceFile(name=path.name, n_bytes=elsewhere[path].n_bytes, sha256=elsewhere[path].sha256)
        for path in source.files
        if path in elsewhere
    ]
    for path, n_bytes in with_sizes:
        digest = hashlib.sha256()
        for chunk in iter_file_checked(path):
            digest.update(chunk)
            progress.advance(path.name, len(chunk))
        # huggingface_hub's cache names the content of LFS files by its hash.
        if _SHA256.fullmatch(named := path.resolve().name) and named != digest.hexdigest():
            raise ModelFileError("is damaged: its hash differs from its name in the cache. Delete it", path=path)
        hashed.append(SourceFile(name=path.name, n_bytes=n_bytes, sha256=digest.hexdigest()))
    return tuple(hashed)


def source_entry(source: Source, files: Sequence[SourceFile]) -> dict[str, Any]:
    """The entry of a source in the manifest: kind, files, importance matrix, and tensors that are copies."""
    entry: dict[str, Any] = {"kind": source.kind, "files": [file.entry for file in files]}
    entry |= {"copies": dict(source.copies)} if source.copies else {}
    if source.imatrix is None:
        return entry
    path = source.imatrix.path
    matrix = SourceFile(name=path.name, n_bytes=path.stat().st_size, sha256=sha256_of(path))
    return entry | {"imatrix": matrix.entry}
