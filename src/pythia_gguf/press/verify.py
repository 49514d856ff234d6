"""Checks existing files: headers, sizes, and every byte against manifest.json or SHA256SUMS."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_gguf.arguments import checked
from pythia_gguf.errors import Argument, ModelFileError, StorageError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.gguf.reader import GGUFFile, open_gguf
from pythia_gguf.json_file import read_text
from pythia_gguf.press.manifest import MANIFEST, SUMS, read_manifest

STATES = ("ok", "damaged", "missing", "unknown")
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_LFS_POINTER = b"version https://git-lfs"
_Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one file.

    state    "ok"; "damaged"; "missing": listed and not here; "unknown": here and not listed, though others are
    fault    one line for a damaged or missing file; else None
    checked  "every byte", "header and sizes" where nothing lists the file, or "nothing" where it is missing
    """

    file: str
    n_bytes: int
    state: str
    fault: str | None
    checked: str


@checked
def verify(
    path: str | os.PathLike[str],
    advance: Callable[[str, int], None] = lambda file, n_bytes: None,
    *,
    ignore_missing: bool = False,
) -> tuple[Verdict, ...]:
    """Check a folder made by `quantize`, or one GGUF file.

    advance         called with (file name, bytes) as bytes are read
    ignore_missing  leave out files that are listed and not here, for a folder that was fetched in part
    Raises   StorageError when there is nothing to check, UsageError where nothing can be missing, ModelFileError for
             a damaged manifest; damaged and missing files are verdicts, so that one does not hide the next
    """
    path = Path(path)
    folder, names, listed = files_to_check(path, ignore_missing=ignore_missing)
    by_quant = {entry.get("quant", ""): entry for entry in listed.values()}
    verdicts = tuple(_verify_file(folder / name, listed, by_quant, advance) for name in names)
    if path.is_dir() and (folder / MANIFEST).exists() and (folder / SUMS).is_file():
        verdicts += _verify_sums(folder / SUMS, listed)
    return verdicts


def files_to_check(path: Path, *, ignore_missing: bool) -> tuple[Path, list[str], dict[str, _Entry]]:
    """The folder, names of the files to check in it, and the listed facts of each; raises as `verify`."""
    if not os.path.exists(path):  # unlike Path.exists, it answers no to a name that is too long
        raise StorageError(f"{one_line(str(path))}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    listed = _listed(folder)
    if ignore_missing and not (listed and path.is_dir()):
        raise UsageError(
            Argument("ignore_missing", True), f" is for a folder with {MANIFEST} or {SUMS}: nothing else can be missing"
        )
    if not path.is_dir():
        return folder, [path.name], listed
    names = list(dict.fromkeys([*listed, *sorted(p.name for p in folder.glob("*.gguf"))]))
    if not names:
        raise StorageError(f"{path}: no {MANIFEST}, no {SUMS} and no .gguf file to check")
    there = [name for name in names if os.path.exists(folder / name)] if ignore_missing else names
    if not there:
        raise StorageError(
            f"{one_line(str(path))}: none of {len(names)} listed files is here",
            (", so ", Argument("ignore_missing", True), " leaves nothing to check"),
        )
    return folder, there, listed


def _listed(folder: Path) -> dict[str, _Entry]:
    """The entries of the manifest by file, or of SHA256SUMS where there is no manifest."""
    if manifest := read_manifest(folder):
        return {entry["file"]: entry for entry in manifest["files"]}
    return _read_sums(folder / SUMS) if (folder / SUMS).is_file() else {}


def _read_sums(path: Path) -> dict[str, _Entry]:
    sums = {}
    for line in read_text(path).splitlines():
        match = _SUM.fullmatch(line)
        if match is None:
            raise ModelFileError(f"expected lines of a hash and a name, got {line[:80]!r}", path=path)
        digest, name = match.groups()
        if Path(name).name != name or name in (".", ".."):
            raise ModelFileError(f"{name[:80]!r} is not the name of a file in this folder", path=path)
        sums[name] = {"file": name, "sha256": digest.lower()}
    return sums


def _verify_sums(path: Path, listed: dict[str, _Entry]) -> tuple[Verdict, ...]:
    """A verdict where SHA256SUMS contradicts the manifest, which decides about the files."""
    try:
        sums = _read_sums(path)
        other = [name for name, entry in listed.items() if sums.get(name, {}).get("sha256") != entry["sha256"]]
        fault = f"{one_line(str(path))}: differs from {MANIFEST} on {one_line(', '.join(other))}" if other else None
    except ModelFileError as e:
        fault = str(e)
    if fault is None:
        return ()
    return (Verdict(file=path.name, n_bytes=path.stat().st_size, state="damaged", fault=fault, checked="every byte"),)


def _verify_file(
    path: Path, listed: dict[str, _Entry], by_quant: dict[str, _Entry], advance: Callable[[str, int], None]
) -> Verdict:
    entry = listed.get(path.name)
    fault: str | None = None
    if not os.path.exists(path):  # a link to nothing too: in a cache of the Hub, a file that was not fetched
        other = (
            f". It is another name of {by_quant[alias]['file']}" if entry and (alias := _alias(entry, by_quant)) else ""
        )
        fault = f"{one_line(str(path))}: is missing{other}"
        return Verdict(file=path.name, n_bytes=0, state="missing", fault=fault, checked="nothing")
    n_bytes, state = os.path.getsize(path), "ok" if entry or not listed else "unknown"
    checked = "every byte" if entry else "header and sizes"
    try:
        if entry is None:
            open_gguf(path)
            advance(path.name, n_bytes)
        else:
            original = by_quant[alias] if (alias := _alias(entry, by_quant)) else entry
            _compare(path, entry, original.get("tensors", []), advance)
    except (ModelFileError, StorageError) as e:
        state, fault = "damaged", str(e)
    return Verdict(file=path.name, n_bytes=n_bytes, state=state, fault=fault, checked=checked)


def _alias(entry: _Entry, by_quant: dict[str, _Entry]) -> str | None:
    """The quant whose bytes a file shares, where it is listed."""
    alias = entry.get("alias_of")
    return alias if alias in by_quant else None


def _compare(path: Path, entry: _Entry, tensors: list[_Entry], advance: Callable[[str, int], None]) -> None:
    """Raises ModelFileError that names the first difference: size, tensor, or header."""
    with RegularFile(path) as file:
        if file.size != entry.get("bytes", file.size):
            if file.read(0, min(file.size, len(_LFS_POINTER))) == _LFS_POINTER:
                raise ModelFileError("a Git LFS pointer, not the file it stands for. Run git lfs pull", path=path)
            raise ModelFileError(
                f"expected {entry['bytes']} bytes, got {file.size}. Fetch it or make it again", path=path
            )
        if sha256_range(file, 0, file.size, lambda n: advance(path.name, n)) == entry["sha256"]:
            return
        if not tensors:
            raise ModelFileError("its hash differs. Fetch it or make it again", path=path)
        gguf = open_gguf(path)
        for row in tensors:
            if row["tensor"] in gguf.tensors and _tensor_hash(file, gguf, row["tensor"]) != row["sha256"]:
                raise ModelFileError("bytes differ from the manifest", path=path, field=f"tensor {row['tensor']}")
    raise ModelFileError("header or padding differs from the manifest; every tensor is as it was", path=path)


def _tensor_hash(file: RegularFile, gguf: GGUFFile, name: str) -> str:
    info = gguf.tensors[name]
    return sha256_range(file, gguf.data_offset + info.offset, info.n_bytes)
