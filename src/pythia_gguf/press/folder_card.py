"""The card of a folder after it was written: whether it was edited, and how it keeps up with the files.

`quantize` renews the card, and `pythia card` puts measured numbers into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_gguf.card.line_ends import in_unix_lines
from pythia_gguf.card.listing import CardFile, relisted
from pythia_gguf.card.measured import keep_measured, without_files
from pythia_gguf.errors import ModelFileError, StorageError, UsageError, one_line
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.json_file import json_text, read_text
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.press.account import words_for
from pythia_gguf.press.file_names import file_name
from pythia_gguf.press.folder import Folder, staging_of
from pythia_gguf.press.manifest import CARD, MANIFEST, SUMS, changed_files, read_manifest, still_there, sums_text
from pythia_gguf.staging import Staging

_COMMAND = re.compile(
    r"(?<=\nThe command:\n\n```sh\n)(pythia quantize .*--quants )\S+(.*?)(?: --keep-f16)?$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderCard:
    """A card that lists the files of its folder.

    text      the card
    manifest  manifest of the files that are there
    is_own    whether nobody has edited the card
    """

    folder: Path
    text: str
    manifest: Mapping[str, Any]
    is_own: bool
    staging: Staging

    def write(self, text: str) -> None:
        """Write another text in place of the card, and the lists of the files that are there; raises StorageError."""
        # If nobody had edited the card, `quantize` may still write it again.
        manifest = {**self.manifest, **({"card_sha256": card_digest(text)} if self.is_own else {})}
        sums = sums_text({entry["file"]: entry["sha256"] for entry in manifest["files"]})
        self.staging.publish({CARD: text, SUMS: sums, MANIFEST: json_text(manifest, indent=1) + "\n"})


@contextlib.contextmanager
def open_card(folder: Path) -> Iterator[FolderCard]:
    """The card of a folder that no other process writes to while the block runs; it does not list missing files.

    Raises UsageError where `quantize` did not make the folder, StorageError where all files or the card are gone,
    ModelFileError for a damaged file, LockedError
    """
    with staging_of(folder) as staging:
        listed = read_manifest(folder)
        if listed is None:
            raise UsageError(f"{folder}: no {MANIFEST}: not a folder of pythia quantize")
        if not os.path.exists(folder / CARD):
            raise StorageError(f"{folder / CARD}: no such file. `pythia quantize` of the same model writes it again")
        manifest, text = still_there(listed, folder), read_text(folder / CARD)
        if not manifest["files"]:
            raise StorageError(f"{one_line(str(folder))}: no file that {MANIFEST} lists is here")
        name = listed.get("name")
        shown = card_with(text, name if isinstance(name, str) else "", _files(manifest, folder))
        yield FolderCard(
            folder=folder,
            text=text if shown is None else shown,
            manifest=manifest,
            is_own=card_digest(text) == listed.get("card_sha256"),
            staging=staging,
        )


def renewed_card(
    folder: Folder, name: str, files: Sequence[CardFile], quantized_by: str | None, write: Callable[[], str]
) -> tuple[str, str | None, list[str]]:
    """The card of a folder once it holds these files, the hash of the last card that was ours alone, and notes.

    name          name of the model
    quantized_by  the name in the card
    write         writes a card from the beginning

    An edited card stays, except for its list of files, and for numbers of files that are gone.
    """
    listed = {f.name: f.sha256 for f in files}
    if folder.card is None or not folder.is_same:
        return (card := write()), card_digest(card), []
    is_true = folder.listed == listed and folder.quantized_by == quantized_by
    is_own = card_digest(folder.card) == folder.card_sha256
    if is_true and is_own:
        return folder.card, folder.card_sha256, []
    if is_own:
        card = in_unix_lines(folder.card, lambda old: keep_measured(old, write()))
        return card, card_digest(card), []
    gone = folder.listed.keys() - listed.keys()
    old = without_files(folder.card, gone | (_quants_of(gone, name) - _quants_of(listed, name)))
    notes = [] if is_true else [f"somebody has edited {CARD}: nothing but its list of files was renewed"]
    return card_with(old, name, files) or old, folder.card_sha256, notes


def _quants_of(files: Container[str], name: str) -> set[str]:
    """The quants of some files; reports call an alias by the name of its original."""
    return {q.alias_of or q.name for q in QUANTS.values() if file_name(name, q.name) in files}


def card_with(card: str, name: str, files: Sequence[CardFile]) -> str | None:
    """A card with these files in its table and its command; None where it has no table of files.

    name  name of the model
    """
    quants, more = words_for([f.quant for f in files])
    words = rf"\g<1>{shlex.quote(quants)}\g<2>{''.join(f' {word}' for word in more)}"
    text = relisted(card, name, files)
    return text and in_unix_lines(text, lambda old: _COMMAND.sub(words, old, count=1))


def card_digest(card: str) -> str:
    """SHA-256 of a card without the line ends and the byte order mark that an editor may have given it."""
    return hashlib.sha256(card.removeprefix("\ufeff").replace("\r\n", "\n").encode()).hexdigest()


def _files(manifest: Mapping[str, Any], folder: Path) -> tuple[CardFile, ...]:
    """Raises ModelFileError for a file that is not as the manifest says."""
    if changed := changed_files(folder, manifest):
        raise ModelFileError(f"is not what {MANIFEST} says. Make it again", path=folder / changed[0])
    return tuple(
        CardFile(
            name=entry["file"],
            quant=entry.get("quant", ""),
            n_bytes=entry["bytes"],
            bits_per_weight=entry.get("bits_per_weight") or _bits_per_weight(folder / entry["file"]),
            sha256=entry["sha256"],
            alias_of=entry.get("alias_of"),
        )
        for entry in manifest["files"]
    )


def _bits_per_weight(path: Path) -> float:
    """Bits per weight, which a manifest of older versions does not have."""
    tensors = open_gguf(path).tensors.values()
    return 8 * sum(t.n_bytes for t in tensors) / sum(t.n_weights for t in tensors)
