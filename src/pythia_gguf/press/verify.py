"""Checks files that were made before: headers, sizes, and every byte against the manifest.

Knows nothing of how they were made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.gguf.reader import GGUFFile, open_gguf
from pythia_gguf.press.manifest import read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about one file.

    fault    None when all is well, else one line
    checked  "every byte" when a manifest was there, else "header and sizes"
    """

    file: str
    n_bytes: int
    fault: str | None
    checked: str


def verify(path: Path, advance: Callable[[str, int], None] = lambda file, n_bytes: None) -> tuple[Verdict, ...]:
    """Check a folder made by `quantize`, or one GGUF file.

    advance  called with (file name, bytes) as bytes are read
    Raises   StorageError when there is nothing to check, ModelFileError for a damaged manifest; damaged files are
             verdicts, so that one does not hide the next
    """
    if not os.path.exists(path):  # unlike Path.exists, it answers no to a name that is too long
        raise StorageError(f"{one_line(str(path))}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    manifest = read_manifest(folder)
    listed = {entry["file"]: entry for entry in manifest["files"]} if manifest else {}
    if path.is_dir():
        names = list(dict.fromkeys([*listed, *sorted(p.name for p in folder.glob("*.gguf"))]))
        if not names:
            raise StorageError(f"{path}: no manifest.json and no .gguf file to check")
    else:
        names = [path.name]
    by_quant = {entry.get("quant", ""): entry for entry in listed.values()}
    return tuple(_verify_file(folder / name, listed.get(name), by_quant, advance) for name in names)


def _verify_file(
    path: Path, entry: dict[str, Any] | None, by_quant: dict[str, dict[str, Any]], advance: Callable[[str, int], None]
) -> Verdict:
    n_bytes = os.path.getsize(path) if os.path.exists(path) else 0
    checked = "every byte" if entry else "header and sizes"
    try:
        if entry is None:
            open_gguf(path)
            advance(path.name, n_bytes)
        else:
            original = by_quant.get(entry.get("alias_of", ""), entry)
            _compare(path, entry, original.get("tensors", []), advance)
    except (ModelFileError, StorageError) as e:
        return Verdict(file=path.name, n_bytes=n_bytes, fault=str(e), checked=checked)
    return Verdict(file=path.name, n_bytes=n_bytes, fault=None, checked=checked)


def _compare(
    path: Path, entry: dict[str, Any], tensors: list[dict[str, Any]], advance: Callable[[str, int], None]
) -> None:
    """Raises ModelFileError that names the first difference: size, tensor, or header."""
    with RegularFile(path) as file:
        if file.size != entry["bytes"]:
            raise ModelFileError(f"expected {entry['bytes']} bytes, got {file.size}. Make it again", path=path)
        if sha256_range(file, 0, file.size, lambda n: advance(path.name, n)) == entry["sha256"]:
            return
        gguf = open_gguf(path)
        for row in tensors:
            if row["tensor"] in gguf.tensors and _tensor_hash(file, gguf, row["tensor"]) != row["sha256"]:
                raise ModelFileError("bytes differ from the manifest", path=path, field=f"tensor {row['tensor']}")
    raise ModelFileError("header or padding differs from the manifest; every tensor is as it was", path=path)


def _tensor_hash(file: RegularFile, gguf: GGUFFile, name: str) -> str:
    info = gguf.tensors[name]
    return sha256_range(file, gguf.data_offset + info.offset, info.n_bytes)
