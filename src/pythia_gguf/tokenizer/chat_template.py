"""Chat templates of a Hugging Face folder -> `tokenizer.chat_template*` keys.

Templates are text here and are never run. The keys, and which file wins, follow llama.cpp 0c1e57098,
gguf-py/gguf/vocab.py (`SpecialVocab`) and gguf_writer.py (`add_chat_template`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import read_json_object, read_text

CHAT_TEMPLATE = "tokenizer.chat_template"
_NAME = re.compile("[a-z0-9_]{1,255}")  # keys of a GGUF are in lower case


def chat_template_metadata(folder: Path, tokenizer_config: Mapping[str, object]) -> dict[str, str | list[str]]:
    """The keys in order; {} when the folder has no template, or no tokenizer_config.json to say it may be used.

    Raises  StorageError, or ModelFileError for a template that is no text.
    """
    if not tokenizer_config:
        return {}
    config_path = folder / "tokenizer_config.json"
    templates = tokenizer_config["chat_template"] if "chat_template" in tokenizer_config else _beside(folder)
    if templates is None:
        return {}
    if isinstance(templates, str):
        templates = [{"name": "default", "template": templates}]
    if not isinstance(templates, list):
        raise ModelFileError("expected a text or a list", path=config_path, field="chat_template")
    by_name: dict[str, str] = {}
    for entry in templates:
        name, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not name or not isinstance(text, str):
            raise ModelFileError("expected a name and a template", path=config_path, field="chat_template")
        key = re.sub("[^a-zA-Z0-9]", "_", name)
        if not _NAME.fullmatch(key):
            raise ModelFileError(
                f"template {name[:80]!r}: expected a name of at most 255 lower-case letters and digits",
                path=config_path,
                field="chat_template",
            )
        by_name[key] = text
    default = by_name.pop("default", None)
    keys: dict[str, str | list[str]] = {f"{CHAT_TEMPLATE}.{name}": text for name, text in by_name.items() if text}
    if by_name:
        keys["tokenizer.chat_templates"] = sorted(by_name)  # the converter's order changes from run to run
    if default:
        keys[CHAT_TEMPLATE] = default
    return keys


def _beside(folder: Path) -> object:
    """Templates in files of their own, as transformers 4.43 and later write them."""
    main = folder / "chat_template.jinja"
    if main.is_file():
        more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        named = [{"name": path.stem, "template": read_text(path)} for path in more]
        return [{"name": "default", "template": read_text(main)}, *named]
    old = folder / "chat_template.json"
    return read_json_object(old, allow_nan=True).get("chat_template") if old.is_file() else None
