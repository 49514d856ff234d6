"""What would change meaning, or make the Rust library panic, is refused by name before the library sees it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from pythia_gguf.errors import ModelFileError
from pythia_gguf.tokenizer import load_tokenizer, tokenizer_from_metadata, vocabulary_metadata, vocabulary_of
from pythia_gguf.tokenizer.vocabulary import BYTE_SYMBOLS

SYMBOLS = sorted(ByteLevel.alphabet())
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def special(i: int, content: str, **flags: bool) -> dict[str, object]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **plain, "special": True} | flags


def small() -> dict[str, object]:
    """A tokenizer.json with all byte symbols, one merge and two added tokens."""
    vocab = {token: i for i, token in enumerate(["<|endoftext|>", *SYMBOLS, "ab"])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(0, "<|endoftext|>"), special(258, "  ", special=False, normalized=True)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": dict(BYTE_LEVEL),
        "post_processor": None,
        "decoder": dict(BYTE_LEVEL),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [["a", "b"]],
        },
    }


def changed(data: dict[str, object], where: str, value: object) -> dict[str, object]:
    """A copy with one field set, `a.b.0.c` for nested ones; `...` removes it."""
    data = copy.deepcopy(data)
    *path, last = [int(p) if p.isdigit() else p for p in where.split(".")]
    holder = data
    for part in path:
        holder = holder[part]
    if value is ...:
        del holder[last]
    elif last == len(holder) and isinstance(holder, list):
        holder.append(value)
    else:
        holder[last] = value
    return data


def keys() -> dict[str, object]:
    """The keys of the small tokenizer in a model of 260 rows."""
    return dict(vocabulary_metadata(vocabulary_of(small(), "t.json"), 260, "config.json"))


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}


FIRST = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}


def around(*ids: int) -> dict[str, object]:
    """A template with a token before every text, of which the file says that it stands for these ids."""
    known = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": list(ids), "tokens": []}} if ids else {}
    return TEMPLATE | {"single": [FIRST, *TEMPLATE["single"]], "special_tokens": known}


def test_byte_symbols_are_those_of_the_library():
    assert sorted(BYTE_SYMBOLS) == SYMBOLS
    assert [BYTE_SYMBOLS[b] for b in (0x00, 0x20, 0x41, 0x7F, 0xAD, 0xFF)] == [
        "\u0100",
        "\u0120",
        "A",
        "\u0121",
        "\u0143",
        "\xff",
    ]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("model.merges", ["a b"]),
        ("model.dropout", 0.0),
        ("model.fuse_unk", True),
        ("model.continuing_subword_prefix", ""),
        ("model.end_of_word_suffix", ""),
        ("model.byte_fallback", ...),
        ("model.ignore_merges", ...),
        ("model.type", ...),
        ("pre_tokenizer.use_regex", ...),
        ("pre_tokenizer.trim_offsets", False),
        ("decoder.add_prefix_space", True),
        ("decoder.trim_offsets", ...),
        ("post_processor", BYTE_LEVEL),
        ("post_processor", TEMPLATE),
        ("post_processor", {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}]}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [BYTE_LEVEL]}),
        ("decoder", {"type": "Sequence", "decoders": [BYTE_LEVEL]}),
        ("truncation", {"max_length": 5}),
        ("padding", {"strategy": {"Fixed": 10**9}}),
        ("model.unk_token", "<unk>"),
        ("model.byte_fallback", True),
        ("truncation", ...),
        ("version", ...),
    ],
)
def test_fields_that_mean_the_same_give_the_same_vocabulary(where, value):
    assert vocabulary_of(changed(small(), where, value), "t.json") == vocabulary_of(small(), "t.json")


def test_the_normalizer_decides_the_pre_tokenizer_name():
    assert vocabulary_of(small(), "t.json").pre == "olmo"
    assert vocabulary_of(changed(small(), "normalizer", None), "t.json").pre == "gpt-2"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("version", "2.0", "version: only '1.0' is supported, got '2.0'"),
        ("paddings", None, "paddings: unknown field. Did you mean padding"),
        ("normalizer", {"type": "NFKC"}, "normalizer.type: only 'NFC' is supported, got 'NFKC'. Did you mean NFC"),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFD"}]}, "only 'NFC' is supported, got 'NFD'"),
        ("normalizer", {"type": "Sequence"}, "normalizer: expected a list of normalizers"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": []}, "pre_tokenizer: expected one step, got 0"),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}, "only 'NFC' is supported"),
        ("normalizer", {}, "normalizer.type: key is missing"),
        ("normalizer", "NFC", "normalizer: expected an object, got 'NFC'"),
        ("pre_tokenizer", None, "pre_tokenizer: expected an object, got None"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer.type: only 'ByteLevel' is supported"),
        ("pre_tokenizer.add_prefix_space", True, "pre_tokenizer.add_prefix_space: only False is supported, got True"),
        ("pre_tokenizer.add_prefix_space", 0, "pre_tokenizer.add_prefix_space: only False is supported, got 0"),
        ("pre_tokenizer.add_prefix_space", ..., "pre_tokenizer.add_prefix_space: key is missing"),
        ("pre_tokenizer.use_regex", False, "pre_tokenizer.use_regex: only True is supported, got False"),
        ("decoder", None, "decoder: expected an object, got None"),
        ("decoder", {"type": "WordPiece"}, "decoder.type: only 'ByteLevel' is supported, got 'WordPiece'"),
        ("post_processor", {"type": "BertProcessing"}, "post_processor.cls: expected a token and its id"),
        ("post_processor", {"type": "Metaspace"}, "post_processor.type: only 'ByteLevel' is supported"),
        ("post_processor", TEMPLATE | {"single": [FIRST]}, "post_processor.special_tokens: '<|endoftext|>' has no ids"),
        ("post_processor", around(), "post_processor.special_tokens: '<|endoftext|>' has no ids"),
        ("post_processor", around(0, 0), "post_processor: puts 2 and 0 tokens around every text"),
        ("post_processor", around(9999), "post_processor: no token has id 9999"),
        ("model.type", "Unigram", "model.type: only 'BPE' is supported, got 'Unigram'"),
        ("model.dropout", 0.1, "model.dropout: only None or 0.0 is supported, got 0.1"),
        ("model.continuing_subword_prefix", "##", "model.continuing_subword_prefix: only None or '' is supported"),
        ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix: only None or '' is supported"),
        ("model.ignore_merges", True, "model.ignore_merges: only False is supported, got True"),
        ("model.droput", None, "model.droput: unknown field. Did you mean dropout"),
        ("model", [], "model: expected an object, got []"),
        ("model", ..., "model: expected an object, got None"),
        ("model.vocab", [], "model.vocab: expected an object of 1 to 1048576 tokens"),
        ("model.vocab", {}, "model.vocab: expected an object of 1 to 1048576 tokens"),
        ("model.vocab.ab", 5, "share id 5"),
        ("model.vocab.ab", 300, "model.vocab: no token has id 257, but there are 259 tokens"),
        ("model.vocab.ab", -1, "token 'ab': expected an id in 0..1048575, got -1"),
        ("model.vocab.ab", 2**40, "token 'ab': expected an id in 0..1048575, got 1099511627776"),
        ("model.vocab.ab", "257", "token 'ab': expected an id in 0..1048575, got '257'"),
        ("model.vocab.ab", 257.0, "token 'ab': expected an id in 0..1048575, got 257.0"),
        ("model.vocab.ab", True, "token 'ab': expected an id in 0..1048575, got True"),
        ("model.merges", None, "model.merges: expected a list, got NoneType"),
        ("model.merges.0", "a", "model.merges: merge 0: expected two texts, got 'a'"),
        ("model.merges.0", "a b c", "model.merges: merge 0: expected two texts, got 'a b c'"),
        ("model.merges.0", ["a"], "model.merges: merge 0: expected two texts, got ['a']"),
        ("model.merges.0", ["a", ""], "model.merges: merge 0: expected two texts"),
        ("model.merges.0", [1, 2], "model.merges: merge 0: expected two texts, got [1, 2]"),
        ("model.merges.0", ["b", "a"], "vocabulary: merge 0 ('b', 'a'): 'ba' is not a token"),
        ("model.merges.0", ["ab", "abab"], "vocabulary: merge 0 ('ab', 'abab'): 'abab' is not a token"),
        ("model.merges.1", ["a", "b"], "vocabulary: a merge is there twice"),
        ("added_tokens", {}, "added_tokens: expected a list"),
        ("added_tokens.0", "x", "added token: expected an object, got 'x'"),
        ("added_tokens.0.lstrip", True, "added token.lstrip: only False is supported, got True"),
        ("added_tokens.0.single_word", True, "added token.single_word: only False is supported, got True"),
        ("added_tokens.0.special", ..., "added token.special: key is missing"),
        ("added_tokens.0.content", "other", "id 0 is '<|endoftext|>' in model.vocab and 'other' here"),
        ("added_tokens.0.content", 3, "added_tokens: expected an id and a text, got 0 and 3"),
        ("added_tokens.0.id", -1, "added_tokens: expected an id and a text, got -1"),
        ("added_tokens.1.id", 0, "added_tokens: expected ascending ids, got 0 after 0"),
        ("added_tokens.1.id", 259, "no token has id 258, but there are 259 tokens"),
        ("added_tokens.1.content", "ab", "vocabulary: token 'ab' has two ids"),
        ("added_tokens.1.content", "", "vocabulary: expected tokens of 1 to 4096 characters"),
        ("added_tokens.1.content", "x" * 4097, "vocabulary: expected tokens of 1 to 4096 characters"),
        ("added_tokens.2", special(259, "\xe9"), "token '\xe9' cannot be stored in a GGUF: it decodes to other text"),
    ],
)
def test_a_tokenizer_json_with_another_meaning_is_refused_by_name(where, value, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed(small(), where, value)))
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_a_byte_is_refused():
    data = small()
    data["model"]["vocab"] = {
        token: i for i, token in enumerate(["<|endoftext|>", *(s for s in SYMBOLS if s != "\u010a"), "ab"])
    }
    data["added_tokens"] = data["added_tokens"][:1]
    with pytest.raises(ModelFileError, match="vocabulary: no token for byte 0x0a"):
        vocabulary_of(data, "t.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model: only 'gpt2' is supported, got 'llama'"),
        ({"model": ...}, "tokenizer.ggml.model: only 'gpt2' is supported, got None"),
        ({"pre": "llama-bpe"}, "tokenizer.ggml.pre: only 'olmo' or 'mpt' or 'gpt-2' is supported, got 'llama-bpe'"),
        ({"pre": "gpt2"}, "got 'gpt2'. Did you mean gpt-2"),
        ({"tokens": ...}, "tokenizer.ggml.tokens: expected an array of texts"),
        ({"tokens": np.arange(260, dtype=np.int32)}, "tokenizer.ggml.tokens: expected an array of texts"),
        ({"tokens": ["a"] * 260}, "vocabulary: token 'a' has two ids"),
        ({"tokens": []}, "tokenizer.ggml.token_type: expected 0 int32 numbers"),
        ({"token_type": ...}, "tokenizer.ggml.token_type: expected 260 int32 numbers, one for each token"),
        ({"token_type": np.ones(260, dtype=np.uint8)}, "tokenizer.ggml.token_type: expected 260 int32 numbers"),
        ({"token_type": np.ones(259, dtype=np.int32)}, "tokenizer.ggml.token_type: expected 260 int32 numbers"),
        ({"token_type": np.full(260, 6, dtype=np.int32)}, "token 0: type 6 is not supported"),
        ({"merges": ...}, "tokenizer.ggml.merges: expected an array of texts"),
        ({"merges": np.arange(3, dtype=np.int32)}, "tokenizer.ggml.merges: expected an array of texts"),
        ({"merges": ["ab"]}, "tokenizer.ggml.merges: merge 0: expected two tokens and a space, got 'ab'"),
        ({"merges": ["a b", "b a"]}, "vocabulary: merge 1 ('b', 'a'): 'ba' is not a token"),
        (
            {"add_bos_token": True},
            "tokenizer.ggml.bos_token_id: expected the id of a token, as every text is to get it",
        ),
        ({"add_eos_token": True, "eos_token_id": np.uint32(260)}, "tokenizer.ggml.eos_token_id: expected the id of"),
        ({"add_eos_token": True, "eos_token_id": np.uint32(2**32 - 1)}, "tokenizer.ggml.eos_token_id: expected the id"),
        (
            {"add_eos_token": True, "eos_token_id": np.uint32(259)},
            "tokenizer.ggml.eos_token_id: expected the id of a token, as every text",
        ),
    ],
)
def test_gguf_keys_that_are_no_such_tokenizer_are_refused_by_name(change, message):
    changes = {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    metadata = {key: value for key, value in (keys() | changes).items() if value is not ...}
    with pytest.raises(ModelFileError) as caught:
        tokenizer_from_metadata(metadata, "model.gguf")
    assert str(caught.value).startswith("model.gguf: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("i", [0, 100, 257, 258, 259])
def test_an_end_token_that_is_not_used_stops_nothing(i):
    # Only tokens that would be put around a text must exist: a wrong id elsewhere is the model's business.
    metadata = keys() | {"tokenizer.ggml.eos_token_id": np.uint32(i)}
    assert tokenizer_from_metadata(metadata, "model.gguf").encode("ab").ids == [257]


def test_mutated_files_give_a_tokenizer_or_one_kind_of_error(tmp_path):
    # A Rust panic would be a BaseException and end the test run.
    rng = random.Random(5)
    leaves = ["version", "truncation", "normalizer.type", "pre_tokenizer.type", "decoder.type", "post_processor"]
    leaves += [f"model.{name}" for name in ("type", "dropout", "unk_token", "fuse_unk", "byte_fallback", "merges.0")]
    leaves += [f"added_tokens.{i}.{name}" for i in (0, 1) for name in ("id", "content", "special", "normalized")]
    leaves += ["model.vocab.a", "model.vocab.ab", "model.vocab.<|endoftext|>", "added_tokens.0", "model.merges"]
    values = [
        None,
        True,
        0,
        1,
        257,
        258,
        -1,
        2**31,
        1.5,
        "",
        "a",
        "ab",
        "\u0120",
        " ",
        [],
        {},
        ["a", "b"],
        "a b",
        "NFC",
        ...,
    ]
    n_good = 0
    for _ in range(250):
        data = small()
        for where in rng.sample(leaves, rng.randint(1, 2)):
            data = _try_change(data, where, rng.choice(values))
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(data))
        try:
            tokenizer = load_tokenizer(path)
        except ModelFileError:
            continue
        n_good += 1
        ids = tokenizer.encode("ab  <|endoftext|> \u00e9").ids
        assert max(ids) < 260
    assert 5 < n_good < 240  # both outcomes are tried


def _try_change(data: dict[str, object], where: str, value: object) -> dict[str, object]:
    """`changed`, or the same data where an earlier change has removed the place."""
    try:
        return changed(data, where, value)
    except (KeyError, IndexError, TypeError):
        return data


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    path = Path(tmp_path) / "tokenizer.json"
    with open(path, "wb") as out:
        out.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(ModelFileError, match="expected at most 67108864 bytes, got 1099511627776"):
        load_tokenizer(path)
