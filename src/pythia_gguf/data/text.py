"""Text of tokens: which tokenizer belongs to which data, and what its ids say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pythia_gguf.data.published import REPOSITORY_OF, published_tokenizer
from pythia_gguf.data.pulled import tokenizer_beside
from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def find_tokenizer(
    name: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None = None, endpoint: str | None = None
) -> Tokenizer:
    """The tokenizer of PREFIX or of a published data set.

    tokenizer  a tokenizer.json that is to be taken instead of the one beside PREFIX
    Raises     UsageError where there is none, StorageError, ModelFileError, NetworkError
    """
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    if os.fspath(name) in REPOSITORY_OF:
        return load_tokenizer(published_tokenizer(endpoint))
    beside = tokenizer_beside(name)
    if not beside.is_file():
        raise UsageError(
            f"{one_line(os.fspath(beside))} is not there, which would make text of ids. Use ", Argument("tokenizer")
        )
    return load_tokenizer(beside)


def spellings(tokenizer: Tokenizer, text: str) -> list[tuple[str, list[int]]]:
    """A text, and the same behind a space, as tokens have it inside of documents; each with its ids.

    Texts that begin with a space or a line end are taken as they are. Raises UsageError for a text of no tokens
    """
    variants = [text] if text[:1].isspace() else [text, f" {text}"]
    found = {variant: tokenizer.encode(variant, add_special_tokens=False).ids for variant in variants}
    first = found[text]
    if not first:
        raise UsageError(Argument("text"), " holds no token")
    # Where the space is a token by itself, every place of the second is one of the first.
    return [(text, first)] + [(v, ids) for v, ids in found.items() if ids[-len(first) :] != first]


def placed_ids(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text, and which of its characters each is of; raises UsageError for a text of no tokens."""
    encoded = tokenizer.encode(text, add_special_tokens=False)
    if not encoded.ids:
        raise UsageError(Argument("text"), " holds no token")
    return list(encoded.ids), list(encoded.offsets)


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of some ids, special tokens shown by name; half a character at an end becomes U+FFFD."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
