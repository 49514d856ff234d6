"""What an earlier run has left in the output folder, and whether it may stay.

Knows no weights. A file stays when the manifest beside it says that the same version made it from the same source, and
it is, byte for byte, what the manifest says. What is not known stays too: then the run is refused, unless it is forced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_range
from pythia_gguf.json_file import read_text
from pythia_gguf.press.folder_card import card_digest
from pythia_gguf.press.manifest import MANIFEST, SUMS, read_manifest
from pythia_gguf.press.menu import MenuItem
from pythia_gguf.press.staging import CARD

T = TypeVar("T")
_INSTEAD = (". Use ", Argument("force", True), " to replace it, move it away, or choose another ", Argument("out"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What earlier runs have left, as their manifest tells of it.

    folder   where it is
    force    whether what may not stay is made anew, instead of refused
    is_same  whether they were runs for the same name, mix, version and source
    source   the manifest's entry for the source
    listed   name -> SHA-256 of all files in the manifest
    there    names of those that are there
    kept     names of those that may stay
    tensors  (tensor name, format) -> SHA-256 of the encoded bytes
    quantized_by  who is named in the card
    card     its text; None when there is none
    card_sha256  of the card as it was written, or None when that is not known
    """

    folder: Path
    force: bool
    is_same: bool
    source: Any
    listed: Mapping[str, str]
    there: frozenset[str]
    kept: frozenset[str]
    tensors: Mapping[tuple[str, str], str]
    quantized_by: str | None
    card: str | None
    card_sha256: str | None

    @property
    def is_own_card(self) -> bool:
        """Whether the card is still as it was written."""
        return self.card is not None and card_digest(self.card) == self.card_sha256

    def checked(
        self, source: Mapping[str, Any], items: Sequence[MenuItem], advance: Callable[[str, int], None]
    ) -> Finished:
        """The same with what may stay after a look at the source and at every byte.

        source   what `source_entry` says of this run
        advance  called with (file name, bytes) as bytes are read
        Raises   UsageError for the first that may not stay, unless the run is forced
        """
        kept = []
        try:
            self._check_source(source)
            for item in (item for item in items if item.file in self.kept):
                with contextlib.suppress(UsageError) if self.force else contextlib.nullcontext():
                    self._check_file(item, advance)
                    kept.append(item.file)
        except UsageError:
            if not self.force:
                raise
            return replace(self, is_same=False, kept=frozenset(), tensors={})
        return replace(self, kept=frozenset(kept))

    def _check_source(self, source: Mapping[str, Any]) -> None:
        """Raises UsageError unless source and importance matrix are those that the files were made with."""
        first = self.folder / next((file for file in self.listed if file in self.there), MANIFEST)
        theirs, ours = dict(self.source) if isinstance(self.source, Mapping) else {}, dict(source)
        before, now = theirs.pop("imatrix", None), ours.pop("imatrix", None)
        if theirs != ours:
            _refuse(first, "and was made from another source")
        if before != now:
            kind = "with another" if before and now else "with an" if before else "without an"
            _refuse(first, f"and was made {kind} importance matrix")

    def _check_file(self, item: MenuItem, advance: Callable[[str, int], None]) -> None:
        """Raises UsageError unless the file is what this run would make."""
        path = self.folder / item.file
        header = item.output(self.folder).header
        with RegularFile(path) as file:
            if sha256_range(file, 0, file.size, lambda n: advance(item.file, n)) != self.listed[item.file]:
                _refuse(path, f"and is not what {MANIFEST} says: its bytes were changed")
            if file.size != item.n_bytes or file.read(0, len(header)) != header:
                _refuse(path, "and has other keys or another plan")
        if not all((e.tensor, e.format) in self.tensors for e in item.entries):
            _refuse(path, f"and {MANIFEST} does not list its tensors")


def find_finished(
    folder: Path, *, tool_version: str, name: str, mix: str, anew: frozenset[str] | None
) -> Finished | None:
    """What the manifest of a folder tells; None when there is none, or none that can be read and the run is forced.

    anew    names of files that are to be made whatever is there; None unless the run is forced
    Raises  UsageError for a manifest of another run, and for a file that has not the size that the manifest says,
            unless the run is forced
    """
    force = anew is not None
    manifest = _read(lambda: read_manifest(folder), force)
    if manifest is None:
        return None
    entries = {entry["file"]: entry for entry in manifest["files"]}
    there = [file for file in entries if os.path.exists(folder / file)]
    is_same = True
    for key, ours in (("tool_version", tool_version), ("name", name), ("mix", mix)):
        if manifest.get(key) != ours:
            is_same = False
            if not force:
                why = f"and was made with {key} {manifest.get(key)!r}, not {ours!r}"
                _refuse(folder / next(iter(there), MANIFEST), why)
    kept = []
    for file in there if is_same else ():
        n_bytes, expected = (folder / file).stat().st_size, entries[file]["bytes"]
        if n_bytes == expected:
            kept.append(file)
        elif not force:
            _refuse(folder / file, f"and is not what {MANIFEST} says: expected {expected} bytes, got {n_bytes}")
    return Finished(
        folder=folder,
        force=force,
        is_same=is_same,
        source=manifest.get("source"),
        listed={file: entry["sha256"] for file, entry in entries.items()},
        there=frozenset(there),
        kept=frozenset(kept) - (anew or frozenset()),
        tensors={
            (row["tensor"], row["format"]): row["sha256"]
            for entry in manifest["files"]
            for row in entry.get("tensors", [])
        },
        quantized_by=manifest.get("quantized_by"),
        card=_read(lambda: read_text(folder / CARD), force) if os.path.exists(folder / CARD) else None,
        card_sha256=manifest.get("card_sha256"),
    )


def refuse_unknown(folder: Path, finished: Finished | None, items: Sequence[MenuItem]) -> None:
    """Raises UsageError for the first file in the way of a run that is not known to come from one like it."""
    for item in items:
        if (finished is None or item.file not in finished.there) and (folder / item.file).exists():
            _refuse(folder / item.file, f"and no {MANIFEST} says what it was made from")
    if finished is None and (folder / SUMS).exists():
        _refuse(folder / SUMS, f"without a {MANIFEST}")
    if finished is None and (folder / CARD).exists():
        _refuse(folder / CARD, "and tells of other files than there will be")


def _read(read: Callable[[], T], force: bool) -> T | None:
    """What is read; where it cannot be used, UsageError, or None when it will be replaced."""
    try:
        return read()
    except ModelFileError as e:
        if force:
            return None
        raise UsageError(*e.parts, _INSTEAD) from e


def _refuse(path: Path, why: str) -> NoReturn:
    raise UsageError(f"{one_line(str(path))} exists {one_line(why)}", _INSTEAD)
