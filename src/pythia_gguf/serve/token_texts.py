"""Tokens as a client reads them: text, bytes where a token is half a character, and where each begins in the text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pythia_gguf.engine.logprobs import TokenLogprob
from pythia_gguf.tokenizer import TextStream, TextTokenizer


def text_of(tokenizer: TextTokenizer, token: int) -> str:
    """The text of a token; where it is not UTF-8 its bytes, as OpenAI writes them: `bytes:\\xe2\\x80`."""
    piece = tokenizer.piece(token)
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def bytes_of(tokenizer: TextTokenizer, token: int) -> list[int] | None:
    """The bytes of a token that is not UTF-8 by itself; None for all others."""
    piece = tokenizer.piece(token)
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return list(piece)
    return None


class Offsets:
    """Where tokens begin in a text, in characters, token by token."""

    def __init__(self, tokenizer: TextTokenizer, first: int = 0, *, hides_control: bool = False) -> None:
        """`hides_control`: the text does not show control tokens, as a text that a model has written does not."""
        self._stream, self._at = TextStream(tokenizer), first
        self._hidden = tokenizer.special.control if hides_control else frozenset()

    def of(self, tokens: Iterable[int]) -> list[int]:
        """Where each of the next tokens begins."""
        found = []
        for token in tokens:
            found.append(self._at)
            if token not in self._hidden:
                self._at += len(self._stream.add(token))
        return found


def new_lists() -> dict[str, list[Any]]:
    """The lists of `shapes.TokenLogprobs`, empty."""
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset", "bytes", "token_ids", "top_ids", "top_tokens")
    return {name: [] for name in names}


def add_tokens(
    lists: dict[str, list[Any]],
    tokenizer: TextTokenizer,
    tokens: Iterable[tuple[int, TokenLogprob | None]],
    offsets: Offsets,
) -> None:
    """Add tokens, each with what is known of its likelihood: nothing of the first one of a prompt."""
    for token, likely in tokens:
        lists["tokens"].append(text_of(tokenizer, token))
        lists["token_logprobs"].append(None if likely is None else likely.logprob)
        lists["top_logprobs"].append(None if likely is None else _by_text(tokenizer, likely))
        lists["text_offset"] += offsets.of([token])
        lists["bytes"].append(bytes_of(tokenizer, token))
        lists["token_ids"].append(token)
        lists["top_ids"].append(None if likely is None else [list(pair) for pair in likely.top])
        lists["top_tokens"].append(None if likely is None else [text_of(tokenizer, i) for i, _ in likely.top])


def _by_text(tokenizer: TextTokenizer, likely: TokenLogprob) -> dict[str, float]:
    """The most likely tokens and the one that came; of tokens with one text the most likely one counts."""
    found: dict[str, float] = {}
    for token, logprob in (*likely.top, (likely.token, likely.logprob)):
        found.setdefault(text_of(tokenizer, token), logprob)
    return found
