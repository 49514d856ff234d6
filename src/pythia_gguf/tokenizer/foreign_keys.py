"""Refuses `tokenizer.*` keys that no program could use, whatever wrote them.

Keys that pass are copied as they are. The keys refused here make llama.cpp 0c1e57098 abort, refuse the file, or take
another token than the key says (src/llama-vocab.cpp, `load`). We accept, because llama.cpp takes them, any name of a
pre-tokenizer (each release knows more), tokens that are empty or very long, bytes without a token, and chat templates,
which are never run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError, nearest

_PREFIX = "tokenizer.ggml."
_WITHOUT_TOKENS = ("none", "no_vocab")
_WITH_MERGES = ("gpt2", "hybriddna", "whitespace", "gemma4")
_MODELS = (*_WITHOUT_TOKENS, *_WITH_MERGES, "llama", "bert", "t5", "rwkv", "plamo2")
_NO_TOKEN = 2**32 - 1  # -1 as u32: how writers say that there is no such token
_FLAGS = ("add_bos_token", "add_eos_token", "add_sep_token")


def check_tokenizer_keys(metadata: Mapping[str, object], path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError for keys of a tokenizer that cannot work; a file may have no tokenizer at all.

    metadata  all keys of a GGUF
    path      where they came from, for messages
    """
    model, tokens = metadata.get(f"{_PREFIX}model"), metadata.get(f"{_PREFIX}tokens")
    if model is None and tokens is None:
        return
    if not isinstance(model, str) or model not in _MODELS:
        _fail(f"no such tokenizer: {model!r}{nearest(str(model)[:80], _MODELS)}", "model", path)
    if not isinstance(metadata.get(f"{_PREFIX}pre", ""), str):
        _fail("expected a text", "pre", path)
    if model in _WITHOUT_TOKENS:
        return
    if not isinstance(tokens, list) or not tokens:
        _fail("expected an array of texts, one for each token", "tokens", path)
    _check_tokens(tokens, path)
    _check_numbers(metadata, "token_type", ("int32",), len(tokens), path)
    _check_numbers(metadata, "scores", ("float32", "int32"), len(tokens), path)
    if model in _WITH_MERGES:
        _check_merges(metadata.get(f"{_PREFIX}merges"), path)
    _check_special(metadata, len(tokens), path)


def _check_tokens(tokens: list[str], path: str | os.PathLike[str]) -> None:
    texts = [token for token in tokens if token]  # llama.cpp gives empty tokens a name of their own
    if len(set(texts)) != len(texts):
        twice, _ = Counter(texts).most_common(1)[0]
        _fail(f"token {twice!r} has two ids: {tokens.index(twice)} is the first", "tokens", path)


def _check_numbers(
    metadata: Mapping[str, object], key: str, dtypes: tuple[str, ...], n: int, path: str | os.PathLike[str]
) -> None:
    values = metadata.get(f"{_PREFIX}{key}")
    if values is None:
        return
    if not isinstance(values, np.ndarray) or values.dtype not in dtypes:
        _fail(f"expected an array of {' or '.join(dtypes)}", key, path)
    if len(values) < n:
        _fail(f"expected {n} numbers, one for each token, got {len(values)}", key, path)


def _check_merges(merges: object, path: str | os.PathLike[str]) -> None:
    if not isinstance(merges, list):
        _fail("expected an array of texts", "merges", path)
    for rank, merge in enumerate(merges):
        # The first character may be a space that belongs to a token, as llama.cpp reads it.
        if not 0 < merge.find(" ", 1) < len(merge) - 1:
            _fail(f"merge {rank}: expected two tokens and a space, got {merge!r}", "merges", path)


def _check_special(metadata: Mapping[str, object], n_tokens: int, path: str | os.PathLike[str]) -> None:
    for name, value in metadata.items():
        key = name.removeprefix(_PREFIX)
        if key in _FLAGS and not isinstance(value, bool):
            _fail(f"expected a bool, got {value!r}", key, path)
        if name == key or not key.endswith("_token_id"):
            continue
        if not isinstance(value, np.uint32):
            _fail(f"expected a uint32, got {value!r}", key, path)
        if value >= n_tokens and value != _NO_TOKEN:
            _fail(f"expected an id in 0..{n_tokens - 1}, got {value}", key, path)


def _fail(message: str, key: str, path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(message, path=path, field=f"{_PREFIX}{key}")
