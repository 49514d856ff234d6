"""Text to token ids and back, as the keys of a GGUF say, for code that runs a model.

Ids become bytes one by one, so that text can be shown while it grows.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pythia_gguf.arguments import checked, shown, whole_numbers
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.json_file import Place
from pythia_gguf.tokenizer.chat_template import CHAT_TEMPLATE
from pythia_gguf.tokenizer.metadata import tokenizer_of, vocabulary_from_metadata
from pythia_gguf.tokenizer.special_tokens import special_tokens
from pythia_gguf.tokenizer.vocabulary import BYTE_SYMBOLS

_BYTE_OF = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


class TextTokenizer:
    """The tokenizer of a model.

    special            its special tokens
    has_chat_template  whether the file has one; templates are programs from elsewhere and are never run
    """

    def __init__(
        self, metadata: Mapping[str, object], path: str | os.PathLike[str], beside: Place | None = None
    ) -> None:
        """From the keys of a GGUF and what a manifest says; raises ModelFileError when they are broken or of another
        kind of tokenizer.

        path    what messages name
        beside  where the manifest is; None: in the folder of `path`
        """
        vocabulary = vocabulary_from_metadata(metadata, path)
        self.special = special_tokens(metadata, Path(path) if beside is None else beside)
        self.has_chat_template = any(key.startswith(CHAT_TEMPLATE) for key in metadata)
        self._path = path
        self._tokenizer = tokenizer_of(vocabulary, self.special, path)
        self._pieces = [_piece(token, i in vocabulary.added) for i, token in enumerate(vocabulary.tokens)]

    @property
    def prefix(self) -> int:
        """The token that stands for an empty text; raises UsageError where the model names none."""
        if self.special.prefix is None:
            raise UsageError(
                f"{one_line(os.fspath(self._path))} names no token that begins or ends a text, so nothing stands for an"
                " empty one"
            )
        return self.special.prefix

    @checked
    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        """Ids of a text.

        special  whether the tokens that the model wants around every text are put there; None: where the text does not
                 begin with its begin token itself
        Raises   UsageError for half a surrogate pair, which no text in UTF-8 has
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise UsageError(f"character {e.start} of the text is half of a surrogate pair") from e
        if special is None:
            first = self.special.prefix
            special = first is None or not text.startswith(self.decode([first]))
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens included; what is not UTF-8 becomes U+FFFD. ValueError for an unknown id."""
        return b"".join(self.piece(i) for i in whole_numbers("ids", ids)).decode("utf-8", "replace")

    @checked
    def piece(self, i: int) -> bytes:
        """Bytes of one token; none for an id that only pads the vocabulary. ValueError for an unknown id."""
        if not 0 <= i < len(self._pieces):
            raise ValueError(f"token ids are 0..{len(self._pieces) - 1}, got {shown(i)}")
        return self._pieces[i]


class TextStream:
    """Tokens in, text out, as far as it is complete in UTF-8."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, i: int) -> str:
        """The text that can be shown after one more token."""
        return self._decoder.decode(self._tokenizer.piece(i))

    def end(self) -> str:
        """The text that is left at the end."""
        return self._decoder.decode(b"", final=True)


def _piece(token: str | None, is_added: bool) -> bytes:
    if token is None:
        return b""
    if is_added or any(c not in _BYTE_OF for c in token):
        return token.encode("utf-8")
    return bytes(_BYTE_OF[c] for c in token)
