"""Keys of a model card's front matter: which values the Hub takes, and which are paths of somebody's disk.

The Hub is known to refuse cards by these rules (huggingface_hub #3862, #4218, autotrain-advanced #648, espnet_model_zoo
#102). Where it keeps a list that grows, as for licences, only the form is checked here: the Hub itself is asked before
anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pythia_gguf.errors import one_line

_REPO_PART = r"(?=[^/]{1,96}(?:/|$))[A-Za-z0-9_](?:[\w.-]*\w)?"
_REPO_ID = re.compile(rf"(?!.*(?:--|\.\.|\.git$))(?:{_REPO_PART}/)?{_REPO_PART}", re.ASCII)
# A path at the beginning, or behind the colon of a tag such as "base_model:adapter:/home/me/model".
_LOCAL_PATH = re.compile(r"(?:^|(?<=:))(?:file:|~?/(?!/)|\.{1,2}[/\\]|~?\\|[A-Za-z]:[/\\](?!/))", re.IGNORECASE)
# Keys for models and data sets that a model was made from, in every spelling.
_ORIGINS = frozenset({"base_model", "base_models", "base_model_sources", "datasets", "dataset", "dataset_sources"})
_RELATIONS = ("adapter", "finetune", "merge", "quantized")


def is_repo_id(text: str) -> bool:
    """Whether a repository can have this name, with or without its owner: the rule of huggingface_hub."""
    return _REPO_ID.fullmatch(text) is not None


def is_local_path(text: str) -> bool:
    """Whether a text is a path of somebody's disk, and no id, no address and no name of a file beside the card."""
    return _LOCAL_PATH.search(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What a key may hold.

    takes    one value
    expected that value in words
    is_list  whether it may be a list of them
    """

    takes: Callable[[str], bool]
    expected: str
    is_list: bool = False


def _form(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


_ANY = _Rule(takes=lambda text: not is_local_path(text), expected="no path of a disk")
_IDS = _Rule(takes=is_repo_id, expected="an id of the Hub, as OWNER/NAME", is_list=True)
_RULES = {
    "base_model": _IDS,
    "datasets": _IDS,
    "new_version": _Rule(takes=is_repo_id, expected=_IDS.expected),
    "license": _Rule(takes=_form("[a-z0-9][a-z0-9.+-]*"), expected="an id such as apache-2.0, or other", is_list=True),
    "language": _Rule(
        takes=_form("[a-z]{2,3}|code|multilingual"), expected="a code of ISO 639 such as en, or code", is_list=True
    ),
    "base_model_relation": _Rule(takes=lambda text: text in _RELATIONS, expected=f"one of {', '.join(_RELATIONS)}"),
    "pipeline_tag": _Rule(takes=_form("[a-z0-9]+(?:-[a-z0-9]+)*"), expected="a task such as text-generation"),
    "tags": _Rule(takes=_ANY.takes, expected=_ANY.expected, is_list=True),
    "metrics": _Rule(takes=_ANY.takes, expected=_ANY.expected, is_list=True),
    "library_name": _ANY,
    "license_name": _ANY,
    "license_link": _ANY,
    "model_name": _ANY,
}


def takes(key: str, text: str) -> bool:
    """Whether the Hub takes a text as a value of a key, or as one of its values."""
    return key not in _RULES or _RULES[key].takes(text)


def faults_of(keys: Mapping[Any, object]) -> list[str]:
    """What the Hub would refuse in a front matter, a line for each key."""
    found = [f"{key!r} is no text and so no key" for key in keys if not isinstance(key, str)]
    for key, rule in _RULES.items():
        if key in keys and (fault := _fault(key, keys[key], rule)):
            found.append(f"{key}: {fault}")
    if "model-index" in keys and (fault := _index_fault(keys["model-index"])):
        found.append(f"model-index: {fault}")
    return found


def without_local_paths(keys: Mapping[str, object]) -> dict[str, object]:
    """A front matter without values that are paths of a disk; keys that have no value left go too."""
    return {key: kept for key, value in keys.items() if (kept := _cleaned(value, key in _ORIGINS)) is not _NOTHING}


def local_paths_in(keys: Mapping[str, object]) -> set[str]:
    """The values that are paths of a disk."""
    return {text for key, value in keys.items() for text in _texts_in(value) if _is_path(text, key in _ORIGINS)}


_NOTHING = object()


def _cleaned(value: object, is_origin: bool) -> object:
    if isinstance(value, str):
        return _NOTHING if _is_path(value, is_origin) else value
    if isinstance(value, dict):
        left: Any = {k: kept for k, v in value.items() if (kept := _cleaned(v, is_origin)) is not _NOTHING}
    elif isinstance(value, list):
        left = [kept for v in value if (kept := _cleaned(v, is_origin)) is not _NOTHING]
    else:
        return value
    return left if left or not value else _NOTHING


def _is_path(text: str, is_origin: bool) -> bool:
    """Where an id belongs, whatever has more slashes than one is a path too, but for addresses."""
    return is_local_path(text) or (is_origin and "://" not in text and (text.count("/") > 1 or "\\" in text))


def _texts_in(value: object) -> Iterator[str]:
    """All texts inside a value, whose parts may be the same one many times."""
    parts, seen = [value], set()
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list) and id(part) not in seen:
            seen.add(id(part))
            parts += part.values() if isinstance(part, dict) else part


def _fault(key: str, value: object, rule: _Rule) -> str:
    entries = value if isinstance(value, list) and rule.is_list else [value]
    for entry in entries:
        if entry is False and key == "language":  # Norwegian, which is "no" to the Hub's parser of YAML
            continue
        if entry is None or entry == "":
            return f"is empty. Expected {rule.expected}, or no such key"
        if not isinstance(entry, str) or not rule.takes(entry):
            return f"{one_line(repr(entry), 100)} is not {rule.expected}"
    return ""


def _index_fault(index: object) -> str:
    """What is wrong with results of an evaluation: huggingface_hub must be able to read them."""
    from huggingface_hub import ModelCardData

    if paths := [text for text in _texts_in(index) if is_local_path(text)]:
        return f"{one_line(repr(paths[0]), 100)} is a path of a disk"
    if not isinstance(index, list):
        return "is no list"
    keys: dict[str, Any] = {"model-index": index}
    try:
        ModelCardData(**keys)
    except (ValueError, AttributeError, TypeError) as e:
        why = e.__cause__ or e.__context__ or e
        return f"{'lacks the key' if isinstance(why, KeyError) else 'cannot be read:'} {one_line(str(why), 100)}"
    return ""
