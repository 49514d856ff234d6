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


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of some ids, special tokens shown by name; half a character at an end becomes U+FFFD."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
