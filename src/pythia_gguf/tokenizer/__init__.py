"""Tokenizers: tokenizer.json and its companions <-> the `tokenizer.*` keys of a GGUF; a working tokenizer from either.

The `tokenizers` library does the BPE itself.
"""

from pythia_gguf.tokenizer.folder import TOKENIZER_FILES, FolderTokenizer, read_tokenizer
from pythia_gguf.tokenizer.foreign_keys import check_tokenizer_keys
from pythia_gguf.tokenizer.metadata import (
    pre_tokenizer_note,
    tokenizer_from_metadata,
    try_tokenizer,
    vocabulary_from_metadata,
    vocabulary_metadata,
)
from pythia_gguf.tokenizer.special_tokens import MANIFEST_KEY, SpecialTokens, special_tokens, tokens_beside
from pythia_gguf.tokenizer.text import TextStream, TextTokenizer
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer, vocabulary_of
from pythia_gguf.tokenizer.vocabulary import AddedToken, Vocabulary

__all__ = [
    "AddedToken",
    "FolderTokenizer",
    "MANIFEST_KEY",
    "SpecialTokens",
    "TOKENIZER_FILES",
    "TextStream",
    "TextTokenizer",
    "Vocabulary",
    "check_tokenizer_keys",
    "load_tokenizer",
    "pre_tokenizer_note",
    "read_tokenizer",
    "special_tokens",
    "tokens_beside",
    "tokenizer_from_metadata",
    "try_tokenizer",
    "vocabulary_from_metadata",
    "vocabulary_metadata",
    "vocabulary_of",
]
