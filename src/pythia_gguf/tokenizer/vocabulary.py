"""The vocabulary of a byte-level BPE tokenizer, and the rules it must keep wherever it comes from.

A vocabulary that passes here cannot make the `tokenizers` library panic; in Python a panic is no Exception.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from pythia_gguf.errors import ModelFileError

MAX_TOKENS = 1 << 20
MAX_MERGES = 1 << 20
MAX_TOKEN_CHARS = 4096

# llama.cpp's pre-tokenizer name -> whether text is brought to Unicode NFC first. Both split text as GPT-2 does.
# llama.cpp itself never normalizes: it differs from Hugging Face on text that is not NFC.
NFC_OF_PRE = {"olmo": True, "mpt": True, "gpt-2": False}
PRE_OF_GPT_NEOX = "olmo"


def _byte_symbols() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (openai/gpt-2, src/encoder.py).

    Bytes that print stand for themselves; the others, in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b if b in printable else 0x100 + others.index(b)) for b in range(256)]


BYTE_SYMBOLS = _byte_symbols()
_BYTES_OF_UTF8 = [b for b in range(256) if b not in (0xC0, 0xC1) and b < 0xF5]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """A token that is found in text before BPE.

    special     a control token, which text decoding may leave out
    normalized  looked for in normalized text
    """

    special: bool
    normalized: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """All of a tokenizer that changes what it gives.

    pre     key of NFC_OF_PRE
    tokens  text by id; None where an id is unused
    added   the tokens that are found before BPE, by id
    merges  (left, right) in order of rank
    """

    pre: str
    tokens: tuple[str | None, ...]
    added: dict[int, AddedToken]
    merges: tuple[tuple[str, str], ...]


def check_vocabulary(vocabulary: Vocabulary, path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError unless tokens are unique and bounded, all bytes have one, and merges lead to tokens."""
    tokens = [token for token in vocabulary.tokens if token is not None]
    known = set(tokens)
    if len(vocabulary.tokens) > MAX_TOKENS or len(vocabulary.merges) > MAX_MERGES:
        _fail(f"more than {MAX_TOKENS} tokens or {MAX_MERGES} merges", path)
    if len(known) != len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        _fail(f"token {twice!r} has two ids", path)
    if any(not 0 < len(token) <= MAX_TOKEN_CHARS for token in tokens):
        _fail(f"expected tokens of 1 to {MAX_TOKEN_CHARS} characters", path)
    for byte in _BYTES_OF_UTF8:
        if BYTE_SYMBOLS[byte] not in known:
            _fail(f"no token for byte {byte:#04x} (symbol {BYTE_SYMBOLS[byte]!r})", path)
    _check_merges(vocabulary, known, path)


def _check_merges(vocabulary: Vocabulary, known: set[str], path: str | os.PathLike[str]) -> None:
    symbols = set(BYTE_SYMBOLS)
    for rank, (left, right) in enumerate(vocabulary.merges):
        for part in (left, right, left + right):
            if part not in known:
                _fail(f"merge {rank} ({left!r}, {right!r}): {part!r} is not a token", path)
        if not symbols.issuperset(left + right):
            _fail(f"merge {rank} ({left!r}, {right!r}): expected byte symbols only", path)
    if len(set(vocabulary.merges)) != len(vocabulary.merges):
        _fail("a merge is there twice", path)


def _fail(message: str, path: str | os.PathLike[str]) -> None:
    raise ModelFileError(message, path=path, field="vocabulary")
