"""manifest.json and SHA256SUMS: what was made from what, and how to check it.

Knows no weights. The manifest has no time and no path of the machine in it, so the same input gives the same manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile
from pythia_gguf.press.menu import MenuItem

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
SCHEMA_VERSION = 1
_LARGEST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that the result depends on: its name, size and SHA-256."""

    name: str
    n_bytes: int
    sha256: str


def manifest_text(
    *,
    tool_version: str,
    name: str,
    mix: str,
    source: Mapping[str, Any],
    items: Sequence[MenuItem],
    sha256: Mapping[str, str],
    tensors: Mapping[tuple[str, str], str],
    card_sha256: str,
    hidden_act: str | None,
) -> str:
    """The text of manifest.json.

    source   what `source_entry` says
    sha256   file name -> hash, for every item
    tensors  (tensor name, format) -> hash of the encoded bytes
    card_sha256  hash of the card as it was written: one that has another was edited since
    hidden_act   the activation as the source's config.json names it; a GGUF has no key for it
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool": "pythia-gguf",
        "tool_version": tool_version,
        "name": name,
        "mix": mix,
        "source": source,
        **({} if hidden_act is None else {"hidden_act": hidden_act}),
        "card_sha256": card_sha256,
        "files": [_file_entry(item, sha256[item.file], tensors) for item in items],
    }
    return json.dumps(manifest, indent=1) + "\n"


def source_entry(kind: str, files: Sequence[SourceFile], imatrix: SourceFile | None) -> dict[str, Any]:
    """What the manifest says of the source: its kind, the hash of every file, and of the importance matrix if any."""
    entry: dict[str, Any] = {"kind": kind, "files": [_file(f) for f in files]}
    return entry if imatrix is None else entry | {"imatrix": _file(imatrix)}


def _file(file: SourceFile) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.n_bytes, "sha256": file.sha256}


def sums_text(items: Sequence[MenuItem], sha256: Mapping[str, str]) -> str:
    """The text of SHA256SUMS, as `sha256sum --check` reads it."""
    return "".join(f"{sha256[item.file]}  {item.file}\n" for item in items)


def _file_entry(item: MenuItem, sha256: str, tensors: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    entry = {"quant": item.quant, "file": item.file, "bytes": item.n_bytes, "sha256": sha256}
    if item.alias_of is not None:
        return entry | {"alias_of": item.alias_of}
    rows = [
        {"tensor": e.tensor, "format": e.format, "reason": e.reason, "sha256": tensors[e.tensor, e.format]}
        for e in item.entries
    ]
    return entry | {"tensors": rows}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None when there is none; raises ModelFileError when it is not one of ours."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    with RegularFile(path) as file:
        if file.size > _LARGEST_BYTES:
            raise ModelFileError(f"manifest of {file.size} bytes is too large", path=path)
        raw = bytes(file.read(0, file.size))
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise ModelFileError(f"not a JSON document: {e}", path=path) from e
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise ModelFileError(f"not a manifest of schema {SCHEMA_VERSION}", path=path)
    for entry in _list(manifest, "files", path):
        for key, kind in (("file", str), ("bytes", int), ("sha256", str)):
            _check(entry, key, kind, path)
        for key in ("quant", "alias_of"):
            if key in entry:
                _check(entry, key, str, path)
        if Path(entry["file"]).name != entry["file"] or entry["file"] in ("", ".", ".."):
            raise ModelFileError(f"{entry['file']!r} is not the name of a file in this folder", path=path)
        for row in _list(entry, "tensors", path) if "tensors" in entry else []:
            for key in ("tensor", "format", "sha256"):
                _check(row, key, str, path)
    return manifest


def _list(parent: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = parent.get(key)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ModelFileError("expected a list of objects", path=path, field=key)
    return value


def _check(entry: dict[str, Any], key: str, kind: type, path: Path) -> None:
    if not isinstance(entry.get(key), kind):
        raise ModelFileError(f"expected {kind.__name__}, got {entry.get(key)!r}", path=path, field=key)
