"""A repository's name taken apart: "pythia-410m-deduped-v0" is a pythia of 410M, deduped, version v0.

The rules are those of llama.cpp 0c1e57098, gguf-py/gguf/metadata.py (`get_model_id_components`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(r"(?:v|iter)?\d+(?:[.]\d+)*", re.IGNORECASE)
_ENCODING = re.compile(r"i?q\d(?:_\w)*|b?fp?(?:16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(?:(?:a|\d+x)?\d+(?:[._]\d+)?[kmbt]\d?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_TUNING = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_KEEPS_CASE = re.compile(r"v\d+(?:\.\d+)*|\d.*")
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True, kw_only=True)
class NameParts:
    """The parts of a name; None for a part that it does not have."""

    full_name: str
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def title(name: str) -> str:
    """Words with capitals: "pythia-410m-deduped-v0" -> "Pythia 410m Deduped v0"."""
    words = name.strip().replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not _KEEPS_CASE.fullmatch(w) else w for w in words)


def name_parts(repo_id: str, n_params: int) -> NameParts:
    """Take "organization/name" or "name" apart.

    n_params  weights of the model; a size in the name that is far from it is, say, a context length
    """
    if " " in repo_id:  # a sentence, not a repository's name
        return NameParts(full_name=repo_id)
    head, slash, tail = repo_id.partition("/")
    full_name = tail if slash else head
    organization = head if slash and not head.startswith(".") else None
    words = [_tagged(i, word, n_params) for i, word in enumerate(w for w in full_name.split("-") if w)]
    if any(tag == "size" and any(c.isdecimal() for c in word) for word, tag in words):
        words = [(word, None if tag == "size" and word.isalpha() else tag) for word, tag in words]
    n_base = _n_basename_words(words)
    base, rest = words[:n_base], words[n_base:]
    parts = {
        "size_label": "-".join(dict.fromkeys(word for word, tag in rest if tag == "size")) or None,
        "finetune": "-".join(word for word, tag in rest if tag in ("finetune", None)) or None,
        "version": "-".join(word for word, tag in rest if tag == "version") or None,
    }
    if not any(parts.values()):  # the name could be anything
        return NameParts(full_name=full_name, organization=organization)
    basename = "-".join(word for word, _ in base) or None
    return NameParts(full_name=full_name, organization=organization, basename=basename, **parts)


def _tagged(i: int, word: str, n_params: int) -> tuple[str, str | None]:
    """A word of a name as keys spell it, and its kind; the first word is never a size or a tuning."""
    if _VERSION.fullmatch(word):
        return word, "version"
    if _ENCODING.fullmatch(word):
        return word.upper(), "encoding"
    if i > 0 and _SIZE.fullmatch(word):
        return _tagged_size(word, n_params)
    if i > 0 and _TUNING.fullmatch(word):
        return word, "finetune"
    return word, None


def _tagged_size(word: str, n_params: int) -> tuple[str, str]:
    word = word.replace("_", ".")
    if word[-1].isdecimal():  # bloom-7b1 is 7.1B
        word = f"{word[:-2]}.{word[-1]}{word[-2]}"
    if word[-2].isdecimal():
        word = word[:-1] + word[-1].upper()
    try:
        said = float(word[:-1]) * _UNITS[word[-1]]
    except (ValueError, KeyError):  # "large", "8x7B", "A3B"
        return word, "size"
    if abs(said - n_params) > 7 * n_params // 8:
        return word[:-1] + word[-1].lower(), "finetune"
    return word, "size"


def _n_basename_words(words: list[tuple[str, str | None]]) -> int:
    """Leading words that are plain or versions make the basename; versions at its end do not belong to it."""
    n = 0
    while n < len(words) and (words[n][1] == "version" or (words[n][1] is None and words[n][0][0].isalpha())):
        n += 1
    if n < len(words):
        return n
    while n and words[n - 1][1] == "version":
        n -= 1
    return n
