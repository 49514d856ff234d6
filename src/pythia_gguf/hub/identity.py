"""Who a model is: name, size and origins as `general.*` keys, from its folder's name, model card and configs.

It takes parsed text and reads no file. The rules are those of llama.cpp 0c1e57098, gguf-py/gguf/metadata.py
(`Metadata`) and utility.py (`size_label`), so that the keys are the converter's, in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.hub.identity_from_name import NameParts, name_parts, title

Keys = dict[str, str | list[str] | np.generic]

_HUB = "https://huggingface.co/"
_URL_STARTS = ("http://", "https://", "ssh://")
_HUB_REPO_URL = re.compile(r"https?://huggingface.co/([^/]+/[^/]+)")

# Field -> the card's keys for it, best first. Fields have the order of the GGUF.
_CARD_KEYS = {
    "name": ("name", "model_name"),
    "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"),
    "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"),
    "basename": ("basename", "model_basename", "model_type"),
    "description": ("description", "model_description"),
    "size_label": ("size_label", "model_size_label"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
    "source.url": ("url", "model_url"),
    "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}
# Key prefix -> the card's keys for it; only the first one present counts.
_ORIGINS = {
    "base_model": ("base_model", "base_models", "base_model_sources"),
    "dataset": ("datasets", "dataset", "dataset_sources"),
}
_ORIGIN_FIELDS = (
    "name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url",
)  # fmt: skip
# Key -> the card's keys for it; the values of all that are present are joined.
_LISTS = {"general.tags": ("tags", "pipeline_tag"), "general.languages": ("languages", "language")}
_UNITS = ((1e12, ("T", 1e-12)), (1e9, ("B", 1e-9)), (1e6, ("M", 1e-6)), (0, ("K", 1e-3)))
# Key -> generation_config.json's keys for it, and its type in the GGUF.
_SAMPLING = {
    "sequence": (("sequence",), str),
    "top_k": (("top_k",), np.int32),
    "top_p": (("top_p",), np.float32),
    "min_p": (("min_p",), np.float32),
    "xtc_probability": (("xtc_probability",), np.float32),
    "xtc_threshold": (("xtc_threshold",), np.float32),
    "temp": (("temperature",), np.float32),
    "penalty_last_n": (("penalty_last_n",), np.int32),
    "penalty_repeat": (("penalty_repeat", "repetition_penalty"), np.float32),
    "mirostat": (("mirostat",), np.int32),
    "mirostat_tau": (("mirostat_tau",), np.float32),
    "mirostat_eta": (("mirostat_eta",), np.float32),
}


def identity_metadata(
    *,
    name: str,
    n_params: int,
    card: Mapping[str, object],
    config: Mapping[str, object],
    generation_config: Mapping[str, object],
    folder: str | os.PathLike[str],
) -> Keys:
    """The `general.*` keys from `general.type` to `general.languages`, in order.

    name      the folder name the converter would see, such as "pythia-70m"; "EleutherAI/pythia-70m" also gives
              the organization
    n_params  weights in all tensors that are written
    card      front matter of README.md, {} when there is none
    config    parsed config.json, for `_name_or_path`
    folder    where the files came from, for messages
    Raises    ModelFileError for a value of the wrong kind.
    """
    readme = os.path.join(folder, "README.md")
    fields = _card_fields(card, readme)
    saved_as = config.get("_name_or_path")
    # With more slashes it is a path on somebody's disk.
    ids = [saved_as] if isinstance(saved_as, str) and saved_as.count("/") <= 1 else []
    for i in (*ids, name):
        for field, value in _fields_of(name_parts(i, n_params)).items():
            fields.setdefault(field, value)
    fields.setdefault("size_label", size_label(n_params))
    keys: Keys = {"general.type": "model"}
    keys |= _sampling(generation_config, os.path.join(folder, "generation_config.json"))
    keys |= {f"general.{field}": fields[field] for field in _CARD_KEYS if fields.get(field)}
    for prefix, spellings in _ORIGINS.items():
        keys |= _origin_keys(prefix, spellings, card, n_params, readme)
    for key, both in _LISTS.items():
        entries = _entries(card, both, readme)
        if entries:
            keys[key] = entries
    return keys


def size_label(n_params: int) -> str:
    """A count in thousands, millions, ... with at least two digits: 70426624 -> "70M", 1414647808 -> "1.4B"."""
    unit, scale = next(entry for least, entry in _UNITS if n_params > least)
    scaled = n_params * scale
    n_decimals = max(0, 2 - len(str(round(scaled)).lstrip("0")))
    return f"{scaled:.{n_decimals}f}{unit}"


def _fields_of(parts: NameParts) -> dict[str, str]:
    fields = {
        "name": title(parts.full_name),
        "organization": None if parts.organization is None else title(parts.organization),
        "basename": parts.basename,
        "finetune": parts.finetune,
        "version": parts.version,
        "size_label": parts.size_label,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _card_fields(card: Mapping[str, object], readme: str) -> dict[str, str]:
    """Fields from the card. An empty text counts as given, so that no guess takes its place."""
    fields = {}
    for field, spellings in _CARD_KEYS.items():
        for key in spellings:
            value = card.get(key)
            if value is None:
                continue
            if key == "license" and isinstance(value, list):
                value = ",".join(_text(entry, key, readme) for entry in value)
            fields[field] = _text(value, key, readme)
            break
    return fields


def _origin_keys(
    prefix: str, spellings: tuple[str, ...], card: Mapping[str, object], n_params: int, readme: str
) -> Keys:
    """Keys for the models or datasets that a model was made from."""
    key = next((key for key in spellings if key in card), None)
    if key is None:
        return {}
    value = card[key]
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    keys: Keys = {f"general.{prefix}.count": np.uint32(len(entries))}
    for i, entry in enumerate(entries):
        fields = _origin_fields(entry, n_params) if isinstance(entry, str) else entry
        if not isinstance(fields, dict):
            _fail(f"expected a name or a mapping, got {entry!r}", key, readme)
        for field in _ORIGIN_FIELDS:
            if field in fields and (text := _text(fields[field], f"{key}.{field}", readme)):
                keys[f"general.{prefix}.{i}.{field}"] = text
    return keys


def _origin_fields(repo: str, n_params: int) -> dict[str, str]:
    """Fields of a repository given by id or URL."""
    if repo.startswith(_URL_STARTS):
        fields = {"repo_url": repo}
        match = _HUB_REPO_URL.fullmatch(repo)
        if match is None:
            return fields
        repo_id = match[1]
    else:
        fields, repo_id = {}, repo
    parts = name_parts(repo_id, n_params)
    known = _fields_of(parts)
    fields |= {field: known[field] for field in ("name", "organization", "version") if field in known}
    if parts.organization is not None:
        fields.setdefault("repo_url", f"{_HUB}{parts.organization}/{parts.full_name}")
    return fields


def _entries(card: Mapping[str, object], spellings: tuple[str, ...], readme: str) -> list[str]:
    found = []
    for key in spellings:
        value = card.get(key)
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            found += [_text(entry, key, readme) for entry in value]
    return found


def _sampling(generation_config: Mapping[str, object], path: str) -> Keys:
    keys: Keys = {}
    for name, (spellings, kind) in _SAMPLING.items():
        key = next((key for key in spellings if key in generation_config), None)
        value = None if key is None else generation_config[key]
        if key is None or value is None:
            continue
        if kind is str:
            if text := _text(value, key, path):
                keys[f"general.sampling.{name}"] = text
            continue
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
        if not whole and (kind is np.int32 or not isinstance(value, float) or not abs(value) < 3e38):
            _fail(f"expected a {'whole ' if kind is np.int32 else ''}number, got {value!r}", key, path)
        keys[f"general.sampling.{name}"] = kind(value)
    return keys


def _text(value: object, key: str, path: str) -> str:
    """Text, or a number that YAML made of it: `version: 1.0` is meant as "1.0"."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _fail(f"expected a text, got {value!r}", key, path)
    return str(value)


def _fail(message: str, field: str, path: str) -> NoReturn:
    raise ModelFileError(message, path=path, field=field)
