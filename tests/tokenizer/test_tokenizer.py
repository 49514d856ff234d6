"""A tokenizer keeps its ids on every path: tokenizer.json, GGUF keys, llama.cpp.

Oracles: the `tokenizers` library reading the original file, and llama.cpp's ids frozen in
tests/golden/conversion_tokens.json (scripts/golden_conversion.py).
"""

from __future__ import annotations

import functools
import json
import time
import unicodedata
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import tokenizers

from pythia_gguf.gguf.writer import header_bytes
from pythia_gguf.json_file import read_json_object
from pythia_gguf.press.conversion import read_hf_model
from pythia_gguf.tokenizer import (
    load_tokenizer,
    tokenizer_from_metadata,
    vocabulary_metadata,
    vocabulary_of,
)
from tokenizer.adversarial_texts import TEXTS

NANO = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
LLAMA_CPP = json.loads((Path(__file__).parents[1] / "golden" / "conversion_tokens.json").read_text())
BOTH = [pytest.param("20b", marks=pytest.mark.tokenizer_20b), "nano"]


@pytest.fixture
def path(request):
    return NANO if request.param == "nano" else request.getfixturevalue("tokenizer_20b")


@functools.lru_cache(maxsize=4)
def original(path: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(path))


@functools.lru_cache(maxsize=4)
def keys_of(path: Path, n_vocab: int = 50304):
    return vocabulary_metadata(vocabulary_of(read_json_object(path), path), n_vocab, "config.json")


@functools.lru_cache(maxsize=4)
def rebuilt(path: Path) -> tokenizers.Tokenizer:
    return tokenizer_from_metadata(keys_of(path), "model.gguf")


@pytest.mark.parametrize("path", BOTH, indirect=True)
def test_ids_from_gguf_keys_alone_equal_the_originals(path):
    # The last one: a control token is found before NFC joins the mark to its last character.
    for text in (*TEXTS, "<|endoftext|>\u0338"):
        assert rebuilt(path).encode(text).ids == original(path).encode(text).ids, text


@pytest.mark.parametrize("path", BOTH, indirect=True)
def test_ids_of_the_checked_file_equal_the_originals(path):
    checked = load_tokenizer(path)
    for text in TEXTS:
        assert checked.encode(text).ids == original(path).encode(text).ids, text


@pytest.mark.parametrize("path", BOTH, indirect=True)
def test_ids_equal_llama_cpps(path):
    # llama.cpp does not bring text to NFC; the golden ids of the 20B tokenizer are those of the NFC form.
    golden = LLAMA_CPP["nano" if path == NANO else "20b"]
    for text, ids in zip(TEXTS, golden, strict=True):
        assert rebuilt(path).encode(text).ids == ids, text


def test_llama_cpp_takes_our_keys_and_gives_the_same_ids(tmp_path):
    # The golden file was written by gguf-py; this one is ours.
    path = tmp_path / "nano.gguf"
    path.write_bytes(header_bytes(read_hf_model(NANO.parent, name="nano").metadata, ()))
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in TEXTS:
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        assert ids == rebuilt(NANO).encode(text).ids, text
    model.close()


@pytest.mark.parametrize("path", BOTH, indirect=True)
def test_decoding_gives_the_text_back(path):
    nfc = path != NANO
    for text in TEXTS:
        ids = rebuilt(path).encode(text).ids
        assert rebuilt(path).decode(ids, skip_special_tokens=False) == (
            unicodedata.normalize("NFC", text) if nfc else text
        )


@pytest.mark.parametrize("path", BOTH, indirect=True)
def test_no_text_gives_more_tokens_than_bytes(path):
    for text in TEXTS:
        form = unicodedata.normalize("NFC", text)
        assert len(rebuilt(path).encode(text).ids) <= max(len(text.encode()), len(form.encode()))


@pytest.mark.tokenizer_20b
def test_rows_past_the_last_token_are_unused(tokenizer_20b):
    keys = keys_of(tokenizer_20b)
    assert keys["tokenizer.ggml.tokens"][50277:] == [f"[PAD{i}]" for i in range(50277, 50304)]
    types = keys["tokenizer.ggml.token_type"]
    assert types.dtype == np.int32
    # 2 control tokens, 23 runs of spaces, 27 rows that no token uses: the tokenizer's own description.
    assert np.bincount(types).tolist() == [0, 50252, 0, 2, 23, 27]
    assert rebuilt(tokenizer_20b).encode("[PAD50280]").ids == original(tokenizer_20b).encode("[PAD50280]").ids


def test_begin_and_end_tokens_are_put_where_the_keys_ask():
    keys = keys_of(NANO) | {
        "tokenizer.ggml.bos_token_id": np.uint32(0),
        "tokenizer.ggml.eos_token_id": np.uint32(1),
    }
    plain = original(NANO).encode("def f(x):").ids
    for bos, eos in ((False, False), (True, False), (False, True), (True, True)):
        flags = {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
        encoded = tokenizer_from_metadata(keys | flags, "model.gguf").encode("def f(x):")
        assert encoded.ids == [0] * bos + plain + [1] * eos


def test_an_unused_id_between_tokens_moves_no_other():
    keys = dict(keys_of(NANO))
    keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"]]
    keys["tokenizer.ggml.tokens"].insert(100, "[unused]")
    keys["tokenizer.ggml.token_type"] = np.insert(keys["tokenizer.ggml.token_type"], 100, 5)
    moved = tokenizer_from_metadata(keys, "model.gguf")
    ids = original(NANO).encode("return self.x<|endoftext|>").ids
    assert moved.encode("return self.x<|endoftext|>").ids == [i + (i >= 100) for i in ids]


def test_a_long_run_of_one_character_takes_no_quadratic_time():
    # It takes 0.2 s on a busy machine; a quadratic merge loop over 300,000 symbols would take minutes.
    for text in ("a", " ", "\u0301"):
        start = time.process_time()
        rebuilt(NANO).encode(text * (300_000 // len(text.encode())))
        assert time.process_time() - start < 5.0, text
