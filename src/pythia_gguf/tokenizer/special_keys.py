"""Which ids begin, end and pad a text, as llama.cpp's converter reads them: from a folder's files to GGUF keys.

The order of the keys, and which file wins, follow llama.cpp 0c1e57098, gguf-py/gguf/vocab.py (`SpecialVocab`), which
reads tokenizer.json by its surface. `named_tokens` has what transformers does with the same files, and where the two
differ the manifest says so (`special_tokens`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.tokenizer.named_tokens import KINDS, text_of
from pythia_gguf.tokenizer.vocabulary import Vocabulary

# Kind of token -> GGUF key of its id; None for a kind that a GGUF has no key for.
_ID_KEYS = dict.fromkeys(KINDS) | {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # the key is spelled so
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
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

    vocabulary        of tokenizer.json alone
    post_processor    that field of tokenizer.json, checked
    tokenizer_config  parsed tokenizer_config.json, {} when there is none; its tokens win
    config            parsed config.json; its ids fill the gaps
    n_vocab           rows of the embedding
    path              the config.json, for messages
    Raises  ModelFileError for an id that no token has.
    """
    named = {kind: tokenizer_config.get(f"{kind}_token") for kind in KINDS}
    named["bos"] = named["bos"] or named["cls"]
    named["eos"] = named["eos"] or named["sep"]
    adds: dict[str, bool] = {}
    for processor in processors_of(post_processor):
        _add(processor, named, adds, is_configured=bool(tokenizer_config))
    i_added = {vocabulary.tokens[i]: i for i in vocabulary.added}
    ids: dict[str, int] = {}
    if tokenizer_config:
        for kind, entry in named.items():
            add = tokenizer_config.get(f"add_{kind}_token")
            if isinstance(add, bool):
                adds.setdefault(kind, add)
            if (text := text_of(entry)) in i_added:
                ids[kind] = i_added[text]
    for kind in named:
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


def processors_of(post_processor: object) -> list[dict[str, Any]]:
    """A post-processor of tokenizer.json as the list of its parts."""
    if not isinstance(post_processor, dict):
        return []
    parts = post_processor.get("processors", [post_processor])
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _add(processor: Mapping[str, Any], named: dict[str, object], adds: dict[str, bool], *, is_configured: bool) -> None:
    """What the converter concludes from one part of the post-processor: into `named` and `adds`."""
    kind = processor.get("type")
    if kind == "ByteLevel":
        adds.setdefault("bos", False)
        adds.setdefault("eos", False)
    elif kind == "RobertaProcessing":
        adds |= {"bos": True, "eos": True, "sep": True}
        if is_configured:
            named["cls"] = named["cls"] or processor["cls"][0]
            named["sep"] = named["sep"] or processor["sep"][0]
    elif kind == "TemplateProcessing":
        _add_template(processor["single"], processor["pair"], named, adds, is_configured=is_configured)


def _add_template(
    single: list[Any], pair: list[Any], named: dict[str, object], adds: dict[str, bool], *, is_configured: bool
) -> None:
    first = _special(single[0]) if len(single) > 1 else None
    last = _special(single[-1]) if len(single) > 1 else None
    if first is not None:
        if not is_configured:
            named["bos"] = first
        elif first not in (named["bos"], named["cls"]):
            named["bos"] = named["bos"] or first
            named["cls"] = named["cls"] or first
        adds["bos"] = first in (named["bos"], named["cls"])
    if last is not None:
        if is_configured and last != named["eos"]:
            spare = next((kind for kind in ("eot", "eom") if kind not in named), None)
            if spare is not None:
                named[spare] = named["eos"]
        named["eos"] = last
        adds["eos"] = True
    # For a pair: what stands between its texts, without what stands around a single text.
    inner = pair[int(first is not None and bool(pair) and _special(pair[0]) == first) :]
    if last is not None and inner and _special(inner[-1]) == last:
        inner = inner[:-1]
    between = inner[1:-1] if len(inner) > 2 and _is_text(inner[0], "A") and _is_text(inner[-1], "B") else []
    if between:
        ends = (named["sep"], named["eos"])
        is_end = [(token := _special(piece)) is not None and token in ends for piece in between]
        adds["sep"] = (is_end[0] and last is None) or (len(between) == 2 and is_end[1])
        if adds["sep"] and is_configured:
            named["sep"] = named["sep"] or named["eos"]


def _special(piece: Any) -> str | None:
    token = piece.get("SpecialToken") if isinstance(piece, dict) else None
    text = token.get("id") if isinstance(token, dict) else None
    return text if isinstance(text, str) else None


def _is_text(piece: Any, which: str) -> bool:
    text = piece.get("Sequence") if isinstance(piece, dict) else None
    return isinstance(text, dict) and text.get("id") == which


def _fail(message: str, field: str, path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(message, path=path, field=field)
