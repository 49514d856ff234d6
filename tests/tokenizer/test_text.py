"""Text to ids and back, as a model's user meets it: equal to the original tokenizer.json."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from pythia_gguf.errors import UsageError
from pythia_gguf.json_file import read_json_object
from pythia_gguf.tokenizer import TextStream, TextTokenizer, vocabulary_metadata, vocabulary_of
from tokenizer.adversarial_texts import TEXTS


@pytest.fixture(scope="module")
def pair(tokenizer_20b: Path) -> tuple[TextTokenizer, tokenizers.Tokenizer]:
    """From the keys of a GGUF alone, and the original."""
    vocabulary = vocabulary_of(read_json_object(tokenizer_20b), tokenizer_20b)
    metadata = vocabulary_metadata(vocabulary, 50304, tokenizer_20b)
    return TextTokenizer(metadata, "keys"), tokenizers.Tokenizer.from_file(str(tokenizer_20b))


@pytest.mark.tokenizer_20b
def test_ids_are_the_originals_and_text_comes_back(pair):
    ours, original = pair
    for text in [*TEXTS, "a" * 1_000_000, " " * 5000, "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 50]:
        ids = ours.encode(text)
        assert ids == original.encode(text).ids
        assert ours.decode(ids) == original.decode(ids, skip_special_tokens=False)
        stream = TextStream(ours)
        assert "".join([stream.add(i) for i in ids] + [stream.end()]) == ours.decode(ids)


@pytest.mark.tokenizer_20b
def test_every_id_has_its_bytes(pair):
    ours, original = pair
    for i in range(50277):
        assert ours.decode([i]) == original.decode([i], skip_special_tokens=False), i
    assert ours.piece(50300) == b""  # pads the vocabulary
    for i in (-1, 50304):
        with pytest.raises(ValueError, match=r"token ids are 0\.\.50303"):
            ours.piece(i)


@pytest.mark.tokenizer_20b
def test_half_a_surrogate_pair_is_refused(pair):
    with pytest.raises(UsageError, match="character 1 of the text is half of a surrogate pair"):
        pair[0].encode("a\ud800")
