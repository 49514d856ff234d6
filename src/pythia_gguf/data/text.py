"""Text of tokens: which tokenizer belongs to which data, and what its ids say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythia_gguf.data.published import REPOSITORY_OF, published_tokenizer
from pythia_gguf.data.pulled import tokenizer_beside
from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.files import read_whole
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.progress import Progress
from pythia_gguf.tokenizer import check_tokenizer_keys, load_tokenizer, tokenizer_from_metadata

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTokenizer:
    """A tokenizer that works.

    library  of the `tokenizers` library
    json     the tokenizer.json that makes the same ids
    """

    library: Tokenizer
    json: bytes


def open_tokenizer(place: str | os.PathLike[str], progress: Progress | None = None) -> OpenTokenizer:
    """The tokenizer of a tokenizer.json, a GGUF, a folder that holds one of them, or a model of the Hub.

    Raises  UsageError, StorageError, ModelFileError, NetworkError
    """
    # Processes that only make ids need none of these.
    from pythia_gguf.press.find_source import find_path
    from pythia_gguf.press.gguf_folder import file_in

    path = find_path(place, progress)
    if path.is_dir():
        own = path / "tokenizer.json"
        found = own if own.is_file() else file_in(path, None)
        if found is None:
            raise UsageError(
                Argument("tokenizer"), f": {one_line(str(path))} holds neither tokenizer.json nor one GGUF"
            )
        path = found
    if path.suffix.lower() != ".gguf":
        return OpenTokenizer(library=load_tokenizer(path), json=read_whole(path))
    metadata = open_gguf(path).metadata
    check_tokenizer_keys(metadata, path)
    library = tokenizer_from_metadata(metadata, path)
    return OpenTokenizer(library=library, json=library.to_str().encode())


def find_tokenizer(
    name: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """The tokenizer of PREFIX or of a published data set.

    tokenizer  what is to be taken instead of the one beside PREFIX, as `open_tokenizer` takes it
    Raises     UsageError where there is none, StorageError, ModelFileError, NetworkError
    """
    if tokenizer is not None:
        return open_tokenizer(tokenizer, progress).library
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
