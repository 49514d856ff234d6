"""manifest.json and SHA256SUMS: which files were made from which source, and how to check them.

The manifest holds no time and no path of the machine, so the same input gives the same manifest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import sha256_of
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.press.menu import MenuItem
from pythia_gguf.press.source import Source
from pythia_gguf.tokenizer import MANIFEST_KEY

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
CARD = "README.md"
SCHEMA_VERSION = 1
_LARGEST_BYTES = 256 << 20
_FILE = {"file": str, "bytes": int, "sha256": str, "bits_per_weight?": float}
_SHAPE = {
    "schema_version": int,
    "quantized_by?": str,
    "files": [
        _FILE | {"quant?": str, "alias_of?": str, "tensors?": [{"tensor": str, "format": str, "sha256": str}]},
    ],
}


def manifest_text(
    source: Source,
    items: Sequence[MenuItem],
    *,
    tool_version: str,
    mix: str,
    made_from: Mapping[str, Any],
    sha256: Mapping[str, str],
    tensors: Mapping[tuple[str, str], str],
    card_sha256: str | None,
    quantized_by: str | None,
) -> str:
    """The text of manifest.json.

    made_from    entry of the source, from `source_entry`
    sha256       file name -> hash, for every item
    tensors      (tensor name, format) -> hash of the encoded bytes
    card_sha256  hash of the card as `quantize` wrote it, which tells whether it was edited since; None: not known
    quantized_by the name in the card
    """
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "tool": "pythia-gguf",
        "tool_version": tool_version,
        "name": source.name,
        "mix": mix,
        "source": made_from,
        **({} if source.hidden_act is None else {"hidden_act": source.hidden_act}),
        **({} if quantized_by is None else {"quantized_by": quantized_by}),
        **({MANIFEST_KEY: dict(source.special_tokens)} if source.special_tokens else {}),
        "card_sha256": card_sha256,
        "files": [_file_entry(item, sha256[item.file], tensors) for item in items],
    }
    return json_text(manifest, indent=1) + "\n"


def sums_text(sha256: Mapping[str, str]) -> str:
    """The text of SHA256SUMS, as `sha256sum --check` reads it; hashes by file name."""
    return "".join(f"{digest}  {file}\n" for file, digest in sha256.items())


def _file_entry(item: MenuItem, sha256: str, tensors: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"quant": item.quant, "file": item.file, "bytes": item.n_bytes, "sha256": sha256}
    entry["bits_per_weight"] = item.bits_per_weight
    if item.alias_of is not None:
        return entry | {"alias_of": item.alias_of}
    rows = [
        {"tensor": e.tensor, "format": e.format, "reason": e.reason, "sha256": tensors[e.tensor, e.format]}
        for e in item.entries
    ]
    return entry | {"tensors": rows}


def sha256_now(folder: Path, entry: Mapping[str, Any]) -> str:
    """SHA-256 of a listed file as it is now: the manifest's own, unless size or time show that the file is newer.

    The manifest is the last file of a run to get its place. Raises StorageError, ModelFileError.
    """
    path = folder / entry["file"]
    file, listed = path.stat(), (folder / MANIFEST).stat()
    is_older = max(file.st_mtime_ns, file.st_ctime_ns) <= listed.st_ctime_ns
    digest: str = entry["sha256"]
    return digest if is_older and file.st_size == entry["bytes"] else sha256_of(path)


def changed_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Listed files that differ from the manifest; all of them must exist. Raises as `sha256_now`."""
    return [entry["file"] for entry in manifest["files"] if sha256_now(folder, entry) != entry["sha256"]]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None when there is none; raises ModelFileError when it is not one of ours."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    what = f"a manifest of schema {SCHEMA_VERSION}"
    manifest = read_json_object(path, _SHAPE, what=what, most_bytes=_LARGEST_BYTES)
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise ModelFileError(f"not {what}", path=path)
    for entry in manifest["files"]:
        if Path(entry["file"]).name != entry["file"] or entry["file"] in ("", ".", ".."):
            raise ModelFileError(f"{entry['file']!r} is not the name of a file in this folder", path=path)
    return manifest


def still_there(manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A manifest without the files that are gone; an alias that has lost its original is a file of its own."""
    by_quant = {entry.get("quant"): entry for entry in manifest["files"]}
    files = [dict(entry) for entry in manifest["files"] if os.path.exists(folder / entry["file"])]
    quants = {entry.get("quant") for entry in files}
    for entry in files:
        if (alias := entry.get("alias_of")) is not None and alias not in quants:
            del entry["alias_of"]
            entry["tensors"] = by_quant.get(alias, {}).get("tensors", [])
    return {**manifest, "files": files}
