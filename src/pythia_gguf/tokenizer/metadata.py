"""Vocabulary <-> `tokenizer.ggml.*` keys, as llama.cpp's converter writes them.

Source: llama.cpp 0c1e57098, conversion/base.py (`get_vocab_base`), gguf-py/gguf/vocab.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from tokenizers import Tokenizer

from pythia_gguf.errors import ModelFileError, nearest
from pythia_gguf.tokenizer.build import build_tokenizer
from pythia_gguf.tokenizer.special_tokens import CONTROL, UNUSED, SpecialTokens, special_tokens
from pythia_gguf.tokenizer.vocabulary import NFC_OF_PRE, PRE_OF_GPT_NEOX, AddedToken, Vocabulary, check_vocabulary

NORMAL, USER_DEFINED = 1, 4  # llama_token_type
_PREFIX = "tokenizer.ggml."
# Added tokens that look special without being marked so: (start, end).
_SPECIAL_LOOKS = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
_SPECIAL_TEXTS = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


def vocabulary_metadata(
    vocabulary: Vocabulary, n_vocab: int, path: str | os.PathLike[str]
) -> dict[str, str | list[str] | np.ndarray]:
    """The keys from `tokenizer.ggml.model` to `tokenizer.ggml.merges`, in order.

    n_vocab  rows of the embedding; ids past the last token are listed as unused `[PADi]`
    path     the config.json that gave n_vocab, for the message
    Raises   ModelFileError when there are more tokens than rows.
    """
    n_tokens = len(vocabulary.tokens)
    if n_tokens > n_vocab:
        raise ModelFileError(
            f"expected at least the tokenizer's {n_tokens} tokens, got {n_vocab}", path=path, field="vocab_size"
        )
    tokens, types = [], []
    for i in range(n_vocab):
        text = vocabulary.tokens[i] if i < n_tokens else None
        kind = _type_of(text, vocabulary.added.get(i))
        if kind == USER_DEFINED and text is not None:
            text = text.replace("\u2581", " ")
        tokens.append(f"[PAD{i}]" if text is None else text)
        types.append(kind)
    return {
        f"{_PREFIX}model": "gpt2",
        f"{_PREFIX}pre": vocabulary.pre,
        f"{_PREFIX}tokens": tokens,
        f"{_PREFIX}token_type": np.array(types, dtype=np.int32),
        f"{_PREFIX}merges": [f"{left} {right}" for left, right in vocabulary.merges],
    }


def vocabulary_from_metadata(metadata: Mapping[str, object], path: str | os.PathLike[str]) -> Vocabulary:
    """The checked vocabulary of a GGUF; raises ModelFileError for another tokenizer and for broken keys."""
    _expect_name(metadata, "model", ("gpt2",), path)
    pre = PRE_OF_GPT_NEOX
    if f"{_PREFIX}pre" in metadata:
        pre = _expect_name(metadata, "pre", tuple(NFC_OF_PRE), path)
    tokens = _texts(metadata, "tokens", path)
    types = metadata.get(f"{_PREFIX}token_type")
    if not isinstance(types, np.ndarray) or types.dtype != np.int32 or types.shape != (len(tokens),):
        _fail(f"expected {len(tokens)} int32 numbers, one for each token", "token_type", path)
    odd = np.flatnonzero(~np.isin(types, (NORMAL, CONTROL, USER_DEFINED, UNUSED)))
    if len(odd):
        _fail(f"token {odd[0]}: type {types[odd[0]]} is not supported", "token_type", path)
    vocabulary = Vocabulary(
        pre=pre,
        tokens=tuple(None if kind == UNUSED else text for text, kind in zip(tokens, types, strict=True)),
        added={
            int(i): AddedToken(special=bool(types[i] == CONTROL), normalized=bool(types[i] != CONTROL))
            for i in np.flatnonzero(np.isin(types, (CONTROL, USER_DEFINED)))
        },
        merges=_merges(_texts(metadata, "merges", path), path),
    )
    check_vocabulary(vocabulary, path)
    return vocabulary


def pre_tokenizer_note(metadata: Mapping[str, object]) -> str | None:
    """What to say about a file that does not name its pre-tokenizer, such as the files of 2023; None for any other.

    llama.cpp takes "default" for it, which splits digits and punctuation as no GPT-NeoX model was trained with.
    """
    if f"{_PREFIX}pre" in metadata or f"{_PREFIX}tokens" not in metadata:
        return None
    return (
        f"{_PREFIX}pre is missing: text is split as GPT-NeoX does ({PRE_OF_GPT_NEOX!r}); llama.cpp splits it otherwise,"
        " and converting the original model again mends that"
    )


def try_tokenizer(
    metadata: Mapping[str, object], path: str | os.PathLike[str]
) -> tuple[Tokenizer | None, tuple[str, ...]]:
    """The tokenizer of a GGUF that `check_tokenizer_keys` has passed, or None; and what a user should know about it.

    None for a file without one, and for one that llama.cpp may know but that is not supported here.
    """
    if f"{_PREFIX}tokens" not in metadata:
        return None, ("the file has no tokenizer: the model runs on token ids, not on text",)
    try:
        tokenizer = tokenizer_from_metadata(metadata, path)
    except ModelFileError as e:
        return None, (f"the model runs on token ids, not on text. {e}",)
    note = pre_tokenizer_note(metadata)
    return tokenizer, () if note is None else (note,)


def tokenizer_from_metadata(metadata: Mapping[str, object], path: str | os.PathLike[str]) -> Tokenizer:
    """The working tokenizer of a GGUF.

    It gives the ids of the tokenizer.json that the keys came from, and puts the begin and end tokens around a text
    where `special_tokens` says so.
    Raises  ModelFileError as `vocabulary_from_metadata`, `special_tokens` and `tokenizer_of`.
    """
    return tokenizer_of(vocabulary_from_metadata(metadata, path), special_tokens(metadata, Path(path)), path)


def tokenizer_of(vocabulary: Vocabulary, special: SpecialTokens, path: str | os.PathLike[str]) -> Tokenizer:
    """The working tokenizer of a checked vocabulary; `special` says which tokens are control tokens.

    Raises  ModelFileError where every text should get a token that does not exist.
    """
    for adds, i, name in ((special.adds_begin, special.begin, "bos"), (special.adds_end, special.end, "eos")):
        if adds and i is None:
            _fail("expected the id of a token, as every text is to get it", f"{name}_token_id", path)
    added = {i: replace(kind, special=i in special.control) for i, kind in vocabulary.added.items()}
    return build_tokenizer(
        replace(vocabulary, added=added),
        i_bos=special.begin if special.adds_begin else None,
        i_eos=special.end if special.adds_end else None,
    )


def _type_of(text: str | None, added: AddedToken | None) -> int:
    if text is None:
        return UNUSED
    if added is None:
        return NORMAL
    looks_special = text in _SPECIAL_TEXTS or any(
        text.startswith(start) and text.endswith(end) for start, end in _SPECIAL_LOOKS
    )
    return CONTROL if added.special or looks_special else USER_DEFINED


def _expect_name(metadata: Mapping[str, object], key: str, known: tuple[str, ...], path: str | os.PathLike[str]) -> str:
    name = metadata.get(f"{_PREFIX}{key}")
    if not isinstance(name, str) or name not in known:
        shown = " or ".join(repr(k) for k in known)
        _fail(f"only {shown} is supported, got {name!r}{nearest(str(name)[:80], known)}", key, path)
    return name


def _texts(metadata: Mapping[str, object], key: str, path: str | os.PathLike[str]) -> list[str]:
    texts = metadata.get(f"{_PREFIX}{key}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        _fail("expected an array of texts", key, path)
    return texts


def _merges(texts: list[str], path: str | os.PathLike[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for rank, text in enumerate(texts):
        left, space, right = text.partition(" ")
        if not (left and space and right):
            _fail(f"merge {rank}: expected two tokens and a space, got {text!r}", "merges", path)
        pairs.append((left, right))
    return tuple(pairs)


def _fail(message: str, key: str, path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(message, path=path, field=f"{_PREFIX}{key}")
