"""The output folder of a run: which files of an earlier run may stay, and how new ones join them.

A file stays when the manifest beside it says that the same version made it from the same source, and when every byte is
as the manifest says. A file that may not stay is an error; only a forced run replaces it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.files import RegularFile, sha256_range, storage_error
from pythia_gguf.json_file import read_text
from pythia_gguf.press.manifest import CARD, MANIFEST, SUMS, read_manifest
from pythia_gguf.press.menu import MenuItem
from pythia_gguf.progress import Progress
from pythia_gguf.staging import Staging

STAGING = ".pythia-press"
_OUR_FILES = re.compile(r"[^.].*\.gguf")
_INSTEAD = (". Use ", Argument("force", True), " to replace it, move it away, or choose another ", Argument("out"))
T = TypeVar("T")


def staging_of(folder: Path) -> Staging:
    """The staging area for a folder of quantized files; the manifest says that all of them are there."""
    return Staging(folder, name=STAGING, files=_OUR_FILES, lists=(CARD, SUMS, MANIFEST))


@contextlib.contextmanager
def open_folder(path: Path, *, force: bool) -> Iterator[Folder]:
    """A folder, made if need be, that no other process writes to while the block runs.

    force   whether files that may not stay are replaced
    Raises  UsageError for a manifest that cannot be read, unless the run is forced; LockedError, StorageError
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(path, e) from e
    with staging_of(path) as staging:
        yield Folder(staging, force=force)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why something in a folder may not stay.

    error  the error for the user
    file   name of the file that has the fault; None: every file of the earlier run has it
    """

    error: UsageError
    file: str | None


class Folder:
    """The files of a folder according to its manifest, and which of them may stay.

    staging      new files are written there
    listed       name -> SHA-256 of all files in the manifest
    there        names of the listed files that exist
    kept         names of the files that may stay, as far as checked
    is_same      whether an earlier run had the name, mix, version and source of this one, as far as checked
    tensors      (tensor name, format) -> SHA-256 of the encoded bytes
    quantized_by the name in the card
    card         text of the card, once it is read; None: there is none beside a manifest
    card_sha256  hash of the card as `quantize` wrote it; None: not known
    """

    def __init__(self, staging: Staging, *, force: bool) -> None:
        """Read the manifest; raises as `open_folder`."""
        self.staging, self.path, self._force = staging, staging.folder, force
        self.kept: frozenset[str] = frozenset()
        manifest = self._read(MANIFEST, lambda: read_manifest(self.path))
        self.is_same = self._has_manifest = manifest is not None
        self._manifest = manifest or {"files": []}
        self._entries = {entry["file"]: entry for entry in self._manifest["files"]}
        self.listed = {file: entry["sha256"] for file, entry in self._entries.items()}
        there = [file for file in self.listed if os.path.exists(self.path / file)]
        self.there = self.kept = frozenset(there)
        self._first = next(iter(there), MANIFEST)
        self.tensors = {
            (row["tensor"], row["format"]): row["sha256"]
            for entry in self._manifest["files"]
            for row in entry.get("tensors", [])
        }
        self.quantized_by = self._manifest.get("quantized_by")
        self.card_sha256 = self._manifest.get("card_sha256")
        self.card: str | None = None

    def look(self, items: Sequence[MenuItem], *, tool_version: str, name: str, mix: str, anew: Iterable[str]) -> None:
        """Compare everything that costs no time, so that a run that will be refused does not read a source first.

        items   all files of the folder after the run
        anew    names of files that a forced run makes anew in any case
        Raises  UsageError for the first fault, unless the run is forced
        """
        self._decide(self._faults_of_run({"tool_version": tool_version, "name": name, "mix": mix}))
        if self._has_manifest and os.path.exists(self.path / CARD):
            self.card = self._read(CARD, lambda: read_text(self.path / CARD))
        self._decide(self._faults_of_strangers(items))
        if self._force:
            self.kept -= frozenset(anew)

    def check(self, items: Sequence[MenuItem], made_from: Mapping[str, object], progress: Progress) -> None:
        """Compare the source, then every byte of the files that may stay.

        made_from  `source_entry` of this run
        Raises     UsageError for the first fault, unless the run is forced
        """
        if self._has_manifest:
            n_bytes = sum(item.n_bytes for item in items if item.file in self.kept)
            progress.stage("checking finished files", n_bytes, "bytes")
            self._decide(self._faults_of_source(made_from))
            self._decide(self._faults_of_bytes(items, progress))

    def missing(self, items: Sequence[MenuItem]) -> list[MenuItem]:
        """Items that are to be made: neither files that may stay nor aliases of other items."""
        return [item for item in items if item.file not in self.kept and item.alias_of is None]

    def check_room(self, items: Sequence[MenuItem]) -> None:
        """Raises StorageError where the missing items do not fit on the disk, or something else has the name of one."""
        self.staging.check_room([item.file for item in items], sum(item.n_bytes for item in self.missing(items)))

    def add(self, items: Sequence[MenuItem], made: Mapping[str, str]) -> dict[str, str]:
        """Add the aliases to the missing items, which are in staging by now; returns all items' hashes by file name.

        made  file name -> hash, of the missing items
        """
        sums = {file: self.listed[file] for file in self.kept} | dict(made)
        originals = {item.quant: item.file for item in items}
        for item in items:
            if item.alias_of is not None:
                original = originals[item.alias_of]
                self.staging.link(original, item.file, or_copy=item.file not in self.kept)
                sums[item.file] = sums[original]
        return {item.file: sums[item.file] for item in items}

    def notes(self, listed: Mapping[str, str]) -> list[str]:
        """Notes on files of the folder that its lists do not have once these files are listed."""
        notes = []
        if gone := sorted(self.listed.keys() - listed.keys() - self.there):
            notes.append(f"not listed any more, as they are gone: {', '.join(gone)}")
        if strangers := sorted(p.name for p in self.path.glob("*.gguf") if p.name not in listed):
            notes.append(f"here too, but not of this run and not listed: {', '.join(strangers)}")
        return notes

    # Whether a file may stay: several functions look for faults, and `_decide` says what follows from a fault.

    def _decide(self, faults: Iterable[Fault]) -> None:
        """Let the first fault end the run; a forced run goes on, and makes anew the files that have faults."""
        for fault in faults:
            if not self._force:
                raise fault.error
            if fault.file is None:
                self.is_same, self.kept = False, frozenset()
            else:
                self.kept -= {fault.file}

    def _read(self, file: str, read: Callable[[], T]) -> T | None:
        """Read something; None where it cannot be used and will be replaced."""
        try:
            return read()
        except ModelFileError as e:
            self._decide([Fault(error=UsageError(*e.parts, _INSTEAD), file=file)])
            return None

    def _faults_of_run(self, facts: Mapping[str, str]) -> Iterator[Fault]:
        for key, ours in facts.items() if self._has_manifest else ():
            if (theirs := self._manifest.get(key)) != ours:
                yield self._fault(None, f"and was made with {key} {theirs!r}, not {ours!r}")
        for file, entry in self._entries.items():
            if file in self.kept and (n_bytes := (self.path / file).stat().st_size) != entry["bytes"]:
                expected = f"expected {entry['bytes']} bytes, got {n_bytes}"
                yield self._fault(file, f"and is not what {MANIFEST} says: {expected}")

    def _faults_of_strangers(self, items: Sequence[MenuItem]) -> Iterator[Fault]:
        for item in items:
            if item.file not in self.there and (self.path / item.file).exists():
                yield self._fault(item.file, f"and no {MANIFEST} says what it was made from")
        for file, why in ((SUMS, f"without a {MANIFEST}"), (CARD, "and tells of other files than there will be")):
            if not self._has_manifest and (self.path / file).exists():
                yield self._fault(file, why)

    def _faults_of_source(self, made_from: Mapping[str, object]) -> Iterator[Fault]:
        source = self._manifest.get("source")
        theirs, ours = dict(source) if isinstance(source, Mapping) else {}, dict(made_from)
        before, now = theirs.pop("imatrix", None), ours.pop("imatrix", None)
        if theirs != ours:
            yield self._fault(None, "and was made from another source")
        if before != now:
            kind = "with another" if before and now else "with an" if before else "without an"
            yield self._fault(None, f"and was made {kind} importance matrix")

    def _faults_of_bytes(self, items: Sequence[MenuItem], progress: Progress) -> Iterator[Fault]:
        for item in items:
            if item.file in self.kept and (why := self._difference(item, progress)):
                yield self._fault(item.file, why)

    def _difference(self, item: MenuItem, progress: Progress) -> str | None:
        """How a file differs from the one that this run would make; None when it does not."""
        header = item.output(self.path).header
        with RegularFile(self.path / item.file) as file:
            sha256 = sha256_range(file, 0, file.size, lambda n: progress.advance(item.file, n))
            if sha256 != self.listed[item.file]:
                return f"and is not what {MANIFEST} says: its bytes were changed"
            if file.size != item.n_bytes or file.read(0, len(header)) != header:
                return "and has other keys or another plan"
        if not all((e.tensor, e.format) in self.tensors for e in item.entries):
            return f"and {MANIFEST} does not list its tensors"
        return None

    def _fault(self, file: str | None, why: str) -> Fault:
        place = one_line(str(self.path / (file or self._first)))
        return Fault(error=UsageError(f"{place} exists {one_line(why)}", _INSTEAD), file=file)
