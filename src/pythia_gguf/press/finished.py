"""What an earlier run has left in the output folder, and whether it may stay.

Knows no weights. A file stays when the manifest beside it says that the same version made it from the same source, and
it is, byte for byte, what the manifest says. What is not known stays too: then the run is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_of, sha256_range
from pythia_gguf.press.manifest import MANIFEST, SUMS, read_manifest
from pythia_gguf.press.menu import MenuItem
from pythia_gguf.press.staging import CARD

_INSTEAD = (". Use ", Argument("force", True), " to replace it, move it away, or choose another ", Argument("out"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Files of earlier runs for the same name, mix and version, as their manifest tells of them.

    folder   where they are
    source   the manifest's entry for the source
    sha256   name -> SHA-256, of the files that are there
    listed   names of all files in the manifest
    tensors  (tensor name, format) -> SHA-256 of the encoded bytes
    card_sha256  of the card as it was written, or None when that is not known
    """

    folder: Path
    source: Any
    sha256: Mapping[str, str]
    listed: frozenset[str]
    tensors: Mapping[tuple[str, str], str]
    card_sha256: str | None

    def is_own_card(self, path: Path) -> bool:
        """Whether a card is still as it was written."""
        return sha256_of(path) == self.card_sha256

    def check_source(self, source: Mapping[str, Any]) -> None:
        """Raises UsageError unless source and importance matrix are those that the files were made with."""
        first = self.folder / next(iter(self.sha256), MANIFEST)
        theirs, ours = dict(self.source) if isinstance(self.source, Mapping) else {}, dict(source)
        before, now = theirs.pop("imatrix", None), ours.pop("imatrix", None)
        if theirs != ours:
            _refuse(first, "and was made from another source")
        if before != now:
            kind = "with another" if before and now else "with an" if before else "without an"
            _refuse(first, f"and was made {kind} importance matrix")

    def check_file(self, item: MenuItem, advance: Callable[[str, int], None]) -> None:
        """Raises UsageError unless the file is what this run would make.

        advance  called with (file name, bytes) as bytes are read
        """
        path = self.folder / item.file
        header = item.output(self.folder).header
        with RegularFile(path) as file:
            if sha256_range(file, 0, file.size, lambda n: advance(item.file, n)) != self.sha256[item.file]:
                _refuse(path, f"and is not what {MANIFEST} says: its bytes were changed")
            if file.size != item.n_bytes or file.read(0, len(header)) != header:
                _refuse(path, "and has other keys or another plan")
        if not all((e.tensor, e.format) in self.tensors for e in item.entries):
            _refuse(path, f"and {MANIFEST} does not list its tensors")


def find_finished(folder: Path, *, tool_version: str, name: str, mix: str) -> Finished | None:
    """What the manifest of a folder tells; None when there is none.

    Raises UsageError for a manifest of another run, and for a file that has not the size that the manifest says.
    """
    try:
        manifest = read_manifest(folder)
    except ModelFileError as e:
        raise UsageError(*e.parts, _INSTEAD) from e
    if manifest is None:
        return None
    entries = {entry["file"]: entry for entry in manifest["files"] if os.path.exists(folder / entry["file"])}
    first = folder / next(iter(entries), MANIFEST)
    for key, ours in (("tool_version", tool_version), ("name", name), ("mix", mix)):
        if manifest.get(key) != ours:
            _refuse(first, f"and was made with {key} {manifest.get(key)!r}, not {ours!r}")
    for file, entry in entries.items():
        if (n_bytes := (folder / file).stat().st_size) != entry["bytes"]:
            _refuse(folder / file, f"and is not what {MANIFEST} says: expected {entry['bytes']} bytes, got {n_bytes}")
    return Finished(
        folder=folder,
        source=manifest.get("source"),
        sha256={file: entry["sha256"] for file, entry in entries.items()},
        listed=frozenset(entry["file"] for entry in manifest["files"]),
        tensors={
            (row["tensor"], row["format"]): row["sha256"]
            for entry in manifest["files"]
            for row in entry.get("tensors", [])
        },
        card_sha256=manifest.get("card_sha256"),
    )


def refuse_unknown(folder: Path, finished: Finished | None, items: Sequence[MenuItem]) -> None:
    """Raises UsageError for the first file in the way of a run that is not known to come from one like it."""
    known = finished.sha256 if finished else {}
    for item in items:
        if item.file not in known and (folder / item.file).exists():
            _refuse(folder / item.file, f"and no {MANIFEST} says what it was made from")
    if finished is None and (folder / SUMS).exists():
        _refuse(folder / SUMS, f"without a {MANIFEST}")
    if not (folder / CARD).exists() or (finished and finished.listed == {item.file for item in items}):
        return
    # A card as this tool wrote it is written anew; one that somebody has edited is not ours to lose.
    if finished is None or not finished.is_own_card(folder / CARD):
        _refuse(folder / CARD, "and tells of other files than there will be")


def _refuse(path: Path, why: str) -> NoReturn:
    raise UsageError(f"{one_line(str(path))} exists {one_line(why)}", _INSTEAD)
