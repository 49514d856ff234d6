"""What a reader sees of a text while a model writes it: tokens in, pieces out that no stop text can take back.

Control tokens are not shown, as in transformers and llama.cpp; a stop text that names one is found all the same.
"""

from __future__ import annotations

import re

from pythia_gguf.tokenizer import TextStream, TextTokenizer

# Stands for a control token in text that is held back: half of a surrogate pair, which no text has.
_MARKS = [chr(i) for i in range(0xD800, 0xE000)]
_MARK = re.compile("[\ud800-\udfff]")


class VisibleText:
    """One text, token by token.

    is_stopped  whether a stop text has come; nothing after it is shown
    """

    def __init__(self, tokenizer: TextTokenizer, stops: tuple[str, ...]) -> None:
        self._stream, self._control = TextStream(tokenizer), tokenizer.special.control
        self._mark_of = dict(zip(sorted(self._control), _MARKS, strict=False))
        texts = {tokenizer.decode([i]): mark for i, mark in self._mark_of.items()}
        for text in sorted(texts, key=len, reverse=True):
            stops = tuple(stop.replace(text, texts[text]) for stop in stops)
        self._stops = stops
        self._held = ""  # it may be the beginning of a stop text
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Add a token; returns the text that can be shown now: whole characters, no part of a stop text."""
        self._held += self._mark_of.get(token, "") if token in self._control else self._stream.add(token)
        self.is_stopped = _first_stop(self._held, self._stops) is not None
        return "" if self.is_stopped else self._take(len(self._held) - _may_be_stop(self._held, self._stops))

    def end(self) -> str:
        """The text that is left to show after the last token."""
        at = _first_stop(self._held, self._stops)
        if at is None:
            # A character that was never completed may be one of a stop text too.
            self._held += self._stream.end()
            at = _first_stop(self._held, self._stops)
        self.is_stopped = at is not None
        return self._take(len(self._held) if at is None else at)

    def _take(self, n: int) -> str:
        """Release the next n characters that were held back, without marks."""
        taken, self._held = self._held[:n], self._held[n:]
        return _MARK.sub("", taken)


def _first_stop(text: str, stops: tuple[str, ...]) -> int | None:
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found) if found else None


def _may_be_stop(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of a text with which a stop text begins."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text)) + 1) if text.endswith(stop[:n])), default=0
    )
