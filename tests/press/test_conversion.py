"""A folder becomes the metadata, names, order of rows and formats of llama.cpp's own converter.

Oracle: tests/golden/conversion.json, made by the real convert_hf_to_gguf.py (scripts/golden_conversion.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import transformers

from press.toy_checkpoint import CASES, TOKENIZER_CONFIG, Toy, buffers, toy_config, write_texts
from pythia_gguf.arch import config_from_hf
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.errors import ModelFileError, PythiaGGUFError
from pythia_gguf.press.conversion import matrix_format, read_hf_model, stored_format, text_files

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "conversion.json").read_text())["cases"]
NANO_TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
NEEDS_20B = pytest.mark.tokenizer_20b
ALL_CASES = [pytest.param(key, marks=NEEDS_20B if toy.tokenizer == "20b" else ()) for key, toy in CASES.items()]


@pytest.fixture
def folder_of(tmp_path, request):
    """A function that writes a case's text files and returns the folder."""

    def write(toy: Toy) -> Path:
        nano = toy.tokenizer == "nano"
        write_texts(toy, tmp_path, NANO_TOKENIZER if nano else request.getfixturevalue("tokenizer_20b"))
        return tmp_path

    return write


def described(metadata) -> list[list[object]]:
    """Metadata in the words of the golden file."""
    kinds = {str: "string", bool: "bool"}
    rows = []
    for key, value in metadata.items():
        if isinstance(value, (list, np.ndarray)):
            kind = "array string" if isinstance(value, list) else f"array {value.dtype}"
            shown = value if isinstance(value, list) else value.tolist()
            if len(shown) > 64:
                shown = {"sha256": hashlib.sha256(json.dumps(shown).encode()).hexdigest(), "n": len(shown)}
        else:
            kind = kinds.get(type(value), type(value).__name__)
            shown = value.item() if isinstance(value, np.generic) else value
        rows.append([key, kind, shown])
    return rows


@pytest.mark.parametrize("key", ALL_CASES)
def test_metadata_equals_the_converters_key_for_key(key, folder_of):
    toy = CASES[key]
    model = read_hf_model(folder_of(toy), name=toy.folder)
    assert described(model.metadata) == [[k, k_type, v] for k, k_type, v in GOLDEN[key]["keys"]]


@pytest.mark.parametrize("key", CASES)
def test_tensor_names_shapes_and_formats_equal_the_converters(key):
    toy = CASES[key]
    shapes = GPT_NEOX.tensor_shapes(config_from_hf(toy_config(toy), "config.json")[0])
    if toy.outtype == "auto":
        dtype = "F16" if toy.weights == "zeros" else toy.weights
        extra = [("BOOL" if b.dtype == bool else "F32", b.shape) for b in buffers(toy).values()]
        by_hf_name = {GPT_NEOX.hf_name(name, path="toy"): shape for name, shape in shapes.items()}
        stored = [(toy.mixed.get(name, dtype), by_hf_name[name]) for name in sorted(by_hf_name)]
        matrices = matrix_format([*extra, *stored])
    else:
        matrices = toy.outtype.upper()
    ours = {name: (stored_format(shape, matrices), list(shape)) for name, shape in shapes.items()}
    theirs = {name: (kept, shape) for name, kept, shape, _ in GOLDEN[key]["tensors"]}
    assert ours == theirs


def test_matrix_format_is_that_of_the_first_half_precision_matrix():
    # A float32 matrix before it does not decide, nor does a vector: conversion/base.py goes on to the next tensor.
    tensors = [("BF16", (4,)), ("F32", (4, 4)), ("BF16", (4, 4)), ("F16", (4, 4))]
    assert matrix_format(tensors) == "BF16"
    assert matrix_format([("F32", (4, 4))]) == "F16"


def test_the_sample_in_this_repository_converts():
    model = read_hf_model(NANO_TOKENIZER.parent, name="nano")
    assert model.metadata["general.size_label"] == "6.8M"  # 6,836,224 parameters, examples/nano/README.md
    assert (model.config.rotary_dims, model.config.hidden_act) == (16, "gelu")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": "[]"}, "config.json: expected a JSON object, got list"),
        ({"config.json": '{"a": 1, "a": 2}'}, "config.json: not usable JSON: key 'a' is there twice"),
        ({"config.json": '{"a": '}, "config.json: not valid JSON: Expecting value at line 1"),
        ({"config.json": '{"a": "\\ud800"}'}, "config.json: has half of a surrogate pair"),
        ({"config.json": "[" * 100_000}, "config.json: not usable JSON"),
        ({"config.json": '{"a": ' + "9" * 5000 + "}"}, "config.json: not usable JSON"),
        ({"README.md": "---\na: [\n---\n"}, "README.md: front matter: not valid YAML"),
        ({"README.md": "---\nlicense: {a: b}\n---\n"}, "README.md: license: expected a text, got {'a': 'b'}"),
        ({"README.md": "---\ntags: [a, [b]]\n---\n"}, "README.md: tags: expected a text, got ['b']"),
        ({"README.md": "---\nbase_model: [3]\n---\n"}, "README.md: base_model: expected a name or a mapping, got 3"),
        ({"generation_config.json": {"top_k": 1.5}}, "generation_config.json: top_k: expected a whole number, got 1.5"),
        ({"generation_config.json": {"top_p": True}}, "generation_config.json: top_p: expected a number, got True"),
        ({"generation_config.json": {"temperature": 1e39}}, "temperature: expected a number, got 1e+39"),
        ({"generation_config.json": {"sequence": ["a"]}}, "sequence: expected a text, got ['a']"),
        # Tokens that only these files name are new ones, for which this model has no rows.
        ({"tokenizer_config.json": {"pad_token": "[PAD]"}}, "expected at least the tokenizer's 4097 tokens, got 4096"),
        ({"special_tokens_map.json": {"additional_special_tokens": ["<x>", "<y>"]}}, "the tokenizer's 4098 tokens"),
        ({"tokenizer_config.json": {"extra_special_tokens": {"image": "<x>"}}}, "the tokenizer's 4097 tokens"),
        ({"added_tokens.json": {"<x>": 4096}}, "expected at least the tokenizer's 4097 tokens, got 4096"),
        ({"added_tokens.json": {"<x>": "4096"}}, "added_tokens.json: '<x>': expected an id"),
        ({"tokenizer_config.json": {"add_prefix_space": True}}, "add_prefix_space: a space before every text"),
        (
            {"tokenizer_config.json": TOKENIZER_CONFIG | {"add_bos_token": True}},
            "add_bos_token: transformers 4 follows",
        ),
        ({"tokenizer_config.json": {"add_eos_token": True}}, "add_eos_token: transformers 4 follows it for this class"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {}}}}, "added_tokens_decoder: expected ids as keys"),
        (
            {"tokenizer_config.json": {"added_tokens_decoder": {"0": {"content": "<|endoftext|>", "lstrip": True}}}},
            "added_tokens_decoder: token 0 ('<|endoftext|>'): only false is supported for lstrip",
        ),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, "added_tokens_decoder: expected an object"),
        ({"tokenizer_config.json": {"chat_template": 3}}, "chat_template: expected a text or a list"),
        ({"tokenizer_config.json": {"chat_template": ["x"]}}, "chat_template: expected a name and a template"),
        ({"tokenizer_config.json": "\x00"}, "tokenizer_config.json: not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(files, message, folder_of):
    toy = Toy(folder="nano", config={"vocab_size": 4096}, files=files, tokenizer="nano")
    with pytest.raises(ModelFileError) as caught:
        read_hf_model(folder_of(toy), name="nano")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 4095}, "config.json: vocab_size: expected at least the tokenizer's 4096 tokens, got 4095"),
        ({"bos_token_id": -1}, "config.json: bos_token_id: expected an id in 0..4095, got -1"),
        ({"pad_token_id": 4096}, "config.json: pad_token_id: expected an id in 0..4095, got 4096"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(config, message, folder_of):
    toy = Toy(folder="nano", config={"vocab_size": 4096} | config, tokenizer="nano")
    with pytest.raises(ModelFileError, match="config.json") as caught:
        read_hf_model(folder_of(toy), name="nano")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PythiaGGUFError, match="config.json: cannot open"):
        read_hf_model(tmp_path, name="x")


@pytest.mark.tokenizer_20b
def test_a_folder_saved_again_by_transformers_5_is_the_same_model(tokenizer_20b, tmp_path):
    # llama.cpp's converter stops there: transformers 5 has moved rotary_pct.
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    write_texts(CASES["tokens-pad-and-flags"], old, tokenizer_20b)
    transformers.AutoConfig.from_pretrained(old).save_pretrained(new)
    transformers.AutoTokenizer.from_pretrained(old).save_pretrained(new)
    assert "rotary_pct" not in json.loads((new / "config.json").read_text())
    before, after = (described(read_hf_model(folder, name="toy").metadata) for folder in (old, new))
    assert after == before


def test_text_files_are_those_that_the_metadata_depends_on(folder_of):
    files = {"chat_template.jinja": "main", "tokenizer_config.json": TOKENIZER_CONFIG, "notes.txt": "x"}
    folder = folder_of(Toy(folder="nano", config={"vocab_size": 4096}, files=files, tokenizer="nano"))
    names = [path.name for path in text_files(folder)]
    assert names == ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def test_more_chat_templates_beside_the_first_are_kept(folder_of):
    files = {"chat_template.jinja": "main", "tokenizer_config.json": TOKENIZER_CONFIG}
    folder = folder_of(Toy(folder="nano", config={"vocab_size": 4096}, files=files, tokenizer="nano"))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool-use.jinja").write_text("tools")
    keys = read_hf_model(folder, name="nano").metadata
    assert [(k, v) for k, v in keys.items() if "chat_template" in k] == [
        ("tokenizer.chat_template.tool_use", "tools"),
        ("tokenizer.chat_templates", ["tool_use"]),
        ("tokenizer.chat_template", "main"),
    ]
