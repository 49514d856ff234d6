"""Names of the files that are made from a source."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from pythia_gguf.errors import Argument, UsageError

_LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,190}")
_MOST_LETTERS = 100
_CACHE_FOLDER = re.compile(r"models--(?:([^/]+?)--)?([^/]+)")
_PLAIN_SUFFIX = re.compile(r"[.-](?:b?f16|f32)$", re.IGNORECASE)


def name_of(source: Path) -> str:
    """NAME of a source: the last part of its folder or repository, or a GGUF file's stem without its format.

    `.../models--EleutherAI--pythia-70m/snapshots/<hash>` is called `pythia-70m`, also by way of a link: never a hash.
    """
    path = Path(os.path.abspath(source))
    if path.suffix.lower() == ".gguf":
        return _PLAIN_SUFFIX.sub("", path.stem)
    repo = repo_of(path)
    return repo.split("/")[-1] if repo else path.name


def repo_of(folder: Path) -> str | None:
    """The repository of a folder in a Hugging Face cache, "EleutherAI/pythia-70m"; None for any other folder."""
    path = snapshot_of(folder)
    match = _CACHE_FOLDER.fullmatch(path.parent.parent.name) if path else None
    return "/".join(part for part in match.groups() if part) if match else None


def snapshot_of(folder: Path) -> Path | None:
    """The folder `models--ORG--NAME/snapshots/COMMIT` that this is or links to, or None."""
    for path in (Path(os.path.abspath(folder)), Path(os.path.realpath(folder))):
        if path.parent.name == "snapshots" and _CACHE_FOLDER.fullmatch(path.parent.parent.name):
            return path
    return None


def check_name(name: str) -> str:
    """The name itself; raises UsageError unless it can begin a file name on every system."""
    if not is_legal(name):
        raise UsageError(
            Argument("name"),
            f": cannot name files {name!r}: expected letters, digits, '.', '_', '+', '-' and inner spaces,"
            " at most 191 characters",
        )
    return name


def legal_name(text: str) -> str:
    """A name that can begin a file name on every system: the text itself, or its legal characters.

    In the second case a hash of the text ends the name, so that other texts get other names: "lr=1e-5,bs=32" becomes
    "lr-1e-5-bs-32-<8 digits>".
    """
    if is_legal(text):
        return text
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9._+]+", "-", letters)[:_MOST_LETTERS].strip("-._+")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words or 'model'}-{digest}"


def is_legal(name: str) -> bool:
    """Whether a name can begin a file name on every system."""
    return bool(_LEGAL.fullmatch(name)) and not name.endswith((".", " "))


def file_name(name: str, quant: str) -> str:
    """Name of one file of the menu, as in the model card."""
    return f"{name}.{quant}.gguf"
