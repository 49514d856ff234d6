"""Which ids begin, end and pad a text: from the files beside tokenizer.json to GGUF keys.

Knows no text that is tokenized. The order of the keys, and which file wins, are those of llama.cpp 0c1e57098,
gguf-py/gguf/vocab.py (`SpecialVocab`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.tokenizer.vocabulary import Vocabulary

# Kind of token -> GGUF key of its id; None for a kind that a GGUF has no key for.
_ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # the key is spelled so
    "pad": "padding_token_id",
    "cls": None,
    "mask": "mask_token_id",
}
_ADD_KINDS = ("bos", "eos", "sep")  # kinds with an add_*_token key


def special_metadata(
    vocabulary: Vocabulary,
    *,
    post_processor: object,
    tokenizer_config: Mapping[str, object],
    config: Mapping[str, object],
    n_vocab: int,
    path: str | os.PathLike[str],
) -> dict[str, np.generic | bool]:
    """The `tokenizer.ggml.*_token_id` and `add_*_token` keys, in order.

    post_processor    that field of tokenizer.json
    tokenizer_config  parsed tokenizer_config.json, {} when there is none; its tokens come first
    config            parsed config.json; its ids fill the gaps
    n_vocab           rows of the embedding
    path              the config.json, for messages
    Raises  ModelFileError for an id that no token has.
    """
    adds = {"bos": False, "eos": False} if _is_byte_level(post_processor) else {}
    texts = {kind: _text_of(tokenizer_config.get(f"{kind}_token")) for kind in _ID_KEYS}
    texts["bos"] = texts["bos"] or texts["cls"]
    texts["eos"] = texts["eos"] or texts["sep"]
    i_added = {vocabulary.tokens[i]: i for i in vocabulary.added}
    ids: dict[str, int] = {}
    for kind, text in texts.items():
        add = tokenizer_config.get(f"add_{kind}_token")
        if isinstance(add, bool):
            adds.setdefault(kind, add)
        if text in i_added:
            ids[kind] = i_added[text]
    for kind in _ID_KEYS:
        i = config.get(f"{kind}_token_id")
        if type(i) is int:  # some models list several ids; a GGUF has room for one, and the converter takes none
            if not 0 <= i < n_vocab:
                _fail(f"expected an id in 0..{n_vocab - 1}, got {i}", f"{kind}_token_id", path)
            ids.setdefault(kind, i)
    keys: dict[str, np.generic | bool] = {}
    for kind, i in ids.items():
        if (key := _ID_KEYS[kind]) is not None:
            keys[f"tokenizer.ggml.{key}"] = np.uint32(i)
    keys |= {f"tokenizer.ggml.add_{kind}_token": add for kind, add in adds.items() if kind in _ADD_KINDS}
    return keys


def check_named_tokens(vocabulary: Vocabulary, names: Mapping[str, object], path: str | os.PathLike[str]) -> None:
    """Refuse a file that adds to or contradicts tokenizer.json.

    transformers lets tokenizer_config.json and its relatives add tokens and change flags when it loads them, so the
    tokenizer would no longer be the one in tokenizer.json.

    names   parsed tokenizer_config.json or special_tokens_map.json
    path    where they came from, for messages
    Raises  ModelFileError for a token that tokenizer.json does not have or has with other flags.
    """
    added = {vocabulary.tokens[i]: (i, kind) for i, kind in vocabulary.added.items()}
    for field, text in _named(names):
        if text not in added:
            _fail(f"{text!r} is no added token of tokenizer.json: save the tokenizer again", field, path)
    changes = {"add_prefix_space"}
    if str(names.get("tokenizer_class")).startswith("GPTNeoXTokenizer"):
        changes |= {"add_bos_token", "add_eos_token"}  # other classes leave this to tokenizer.json
    for field in sorted(changes):
        if names.get(field):
            _fail("what is put around every text must be in tokenizer.json: save it again", field, path)
    decoder = names.get("added_tokens_decoder", {})
    if not isinstance(decoder, dict):
        _fail("expected an object", "added_tokens_decoder", path)
    for key, entry in decoder.items():
        name = _text_of(entry)
        i, kind = added.get(name, (None, None))
        same = str(i) == key and kind is not None and isinstance(entry, dict)
        flags = {} if kind is None else {"special": kind.special, "normalized": kind.normalized}
        flags |= {"lstrip": False, "rstrip": False, "single_word": False}
        if not same or any(entry.get(flag, value) != value for flag, value in flags.items()):
            _fail(f"token {key} ({name!r}) is not as in tokenizer.json", "added_tokens_decoder", path)


def _named(names: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(field, text) of every token that a tokenizer_config.json or special_tokens_map.json names."""
    fields = {f"{kind}_token": names.get(f"{kind}_token") for kind in _ID_KEYS}
    for field in ("additional_special_tokens", "extra_special_tokens"):
        value = names.get(field)
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        fields |= {f"{field}[{i}]": entry for i, entry in enumerate(entries)}
    for field, entry in fields.items():
        text = _text_of(entry)
        if text is not None:
            yield field, text


def _text_of(entry: object) -> str | None:
    """A token is written as its text or as an object with its text in `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _is_byte_level(post_processor: object) -> bool:
    return isinstance(post_processor, dict) and post_processor.get("type") == "ByteLevel"


def _fail(message: str, field: str, path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(message, path=path, field=field)
