"""Sizes from config.json and from GGUF keys: every spelling means the same model, every impossible value is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pythia_gguf.arch import ModelConfig, config_from_gguf, config_from_hf
from pythia_gguf.arch.activation import GELU_OF_ACT
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.errors import ModelFileError

# EleutherAI/pythia-410m's config.json, in the keys that matter.
PYTHIA_410M = {
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
OLD_ROPE = ("rotary_emb_base", "rotary_pct")


def read(config) -> ModelConfig:
    return config_from_hf(config, "config.json")[0]


GGUF = {
    "general.architecture": "gptneox",
    **GPT_NEOX.gguf_keys(read(PYTHIA_410M)),
    "tokenizer.ggml.tokens": ["x"] * 50304,
}


def without(keys, *left_out):
    return {key: value for key, value in keys.items() if key not in left_out}


def test_410m_is_what_its_model_card_says():
    config = read(PYTHIA_410M)
    assert (config.n_layers, config.hidden, config.n_heads, config.head_dim) == (24, 1024, 16, 64)
    assert (config.n_ffn, config.n_context, config.n_vocab) == (4096, 2048, 50304)
    assert config.rotary_dims == 16  # a quarter of 64
    assert (config.rope_base, config.layer_norm_eps, config.parallel_residual) == (10000.0, 1e-5, True)
    assert config.hidden_act == "gelu"


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.25, "rope_type": "default"}},
        {"rope_theta": 10000.0, "partial_rotary_factor": 0.25, "rope_scaling": None},
        {"rope_theta": None, "partial_rotary_factor": None, "rope_parameters": None},
        {"rope_scaling": {}, "rope_parameters": {}},
        {"rope_scaling": {"rope_theta": 10000, "partial_rotary_factor": 0.25}},
        {"rope_scaling": {"type": "linear", "factor": 1.0}},
        {"rotary_pct": 0.25, "partial_rotary_factor": 0.25, "rope_parameters": {"rope_theta": 10000.0}},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "default"}},
        {"rope_scaling": {"type": "default", "factor": 1.0}},
        {},
    ],
)
def test_every_spelling_of_the_rotary_keys_means_the_same(spelling):
    config = without(PYTHIA_410M, *OLD_ROPE) | spelling
    assert config_from_hf(config, "config.json") == (read(PYTHIA_410M), ())


def test_the_mixed_file_that_transformers_4_57_writes_is_read():
    path = Path(__file__).parents[2] / "examples" / "nano" / "config.json"
    config, notes = config_from_hf(json.loads(path.read_text()), path)
    assert notes == ()
    assert (config.n_layers, config.hidden, config.rotary_dims) == (6, 256, 16)


def test_keys_of_a_gguf_give_the_same_sizes_back():
    source = read(PYTHIA_410M)
    back = config_from_gguf(GGUF, "model.gguf")
    assert back.hidden_act is None
    assert back.hidden_act is None
    assert GPT_NEOX.gguf_keys(back) == GPT_NEOX.gguf_keys(source)
    # The epsilon went through float32; the rest is exact.
    assert back.layer_norm_eps == float(np.float32(1e-5))
    assert (back.n_vocab, back.rotary_dims) == (source.n_vocab, source.rotary_dims)


def test_another_rope_base_is_written_only_when_it_is_another():
    config = read(PYTHIA_410M | {"rotary_emb_base": 50000})
    assert GPT_NEOX.gguf_keys(config)["gptneox.rope.freq_base"] == np.float32(50000)
    assert config_from_gguf(GGUF | GPT_NEOX.gguf_keys(config), "model.gguf").rope_base == 50000.0
    assert "gptneox.rope.freq_base" not in GGUF


@pytest.mark.parametrize(
    ("name", "formula"), [("gelu", "erf"), ("gelu_new", "tanh"), ("gelu_fast", "tanh"), ("gelu_pytorch_tanh", "tanh")]
)
def test_activation_names_give_the_formula_of_transformers(name, formula):
    assert GELU_OF_ACT[read(PYTHIA_410M | {"hidden_act": name}).hidden_act] == formula


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type: expected 'gpt_neox' (Pythia, GPT-NeoX), got 'llama'"),
        ({"model_type": "gpt_neox_japanese"}, "got 'gpt_neox_japanese'"),
        ({"model_type": None}, "model_type: expected 'gpt_neox'"),
        ({"architectures": ["GPTNeoXForSequenceClassification"]}, "architectures: expected ['GPTNeoXForCausalLM']"),
        ({"architectures": "GPTNeoXForCausalLM"}, "architectures: expected ['GPTNeoXForCausalLM'], got"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "quantization_config: the weights are quantized already by gptq",
        ),
        (
            {"quantization_config": {"load_in_8bit": True}},
            "quantization_config: the weights are quantized already: take",
        ),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization: the weights are quantized already"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: expected true or false, got 1"),
        ({"attention_bias": False}, "attention_bias: expected true, got False"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type: scaled rotary positions"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type: scaled rotary positions"),
        ({"rope_scaling": {"rope_type": "default", "type": "linear"}}, "rope_scaling.type: scaled rotary positions"),
        ({"rope_scaling": {"rope_type": None}}, "rope_scaling.rope_type: scaled rotary positions"),
        ({"rope_parameters": [1]}, "rope_parameters: expected an object or null, got [1]"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5}}}, "expected one set of rotary keys"),
        ({"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta: expected a number, got None"),
        ({"rotary_pct": 0.0}, "rotary_pct: expected a number above 0 and at most 1, got 0.0"),
        ({"rotary_pct": 1.5}, "rotary_pct: expected a number above 0 and at most 1, got 1.5"),
        ({"rotary_pct": float("nan")}, "rotary_pct: expected a number above 0"),
        ({"rotary_pct": "0.25"}, "rotary_pct: expected a number, got '0.25'"),
        ({"rotary_pct": 0.3}, "rotary_pct: expected an even number of rotated dimensions in 2..64, got 19"),
        ({"rotary_pct": 0.001}, "rotary_pct: expected an even number of rotated dimensions in 2..64, got 0"),
        ({"rotary_emb_base": 1}, "rotary_emb_base: expected a number above 1"),
        ({"rotary_emb_base": 10**400}, "rotary_emb_base: expected a number above 1"),
        ({"hidden_act": "relu"}, "hidden_act: a GGUF of this architecture always computes a GELU, got 'relu'"),
        ({"hidden_act": "gelu_pytorch_tan"}, "Did you mean gelu_pytorch_tanh"),
        ({"hidden_act": 3}, "hidden_act: a GGUF of this architecture always computes a GELU, got 3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected 1..512, got 0"),
        ({"num_hidden_layers": 513}, "num_hidden_layers: expected 1..512, got 513"),
        ({"num_hidden_layers": 24.0}, "num_hidden_layers: expected a whole number, got 24.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected a whole number, got True"),
        ({"num_hidden_layers": ...}, "num_hidden_layers: key is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected 1..65536, got 0"),
        ({"num_attention_heads": 15}, "num_attention_heads: expected a divisor of the width 1024, got 15"),
        ({"hidden_size": 0}, "hidden_size: expected 1..1048576, got 0"),
        ({"hidden_size": 2**31}, "hidden_size: expected 1..1048576, got 2147483648"),
        ({"hidden_size": "1024"}, "hidden_size: expected a whole number, got '1024'"),
        ({"intermediate_size": -1}, "intermediate_size: expected 1..4194304, got -1"),
        ({"intermediate_size": ...}, "intermediate_size: key is missing"),
        ({"use_parallel_residual": None}, "use_parallel_residual: expected a value, got null"),
        ({"max_position_embeddings": 0}, "max_position_embeddings: expected 1..2147483647, got 0"),
        ({"vocab_size": 0}, "vocab_size: expected 1..16777216, got 0"),
        ({"vocab_size": 2**24 + 1}, "vocab_size: expected 1..16777216, got 16777217"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: expected a number above 1e-30 and at most 1, got nan"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps: expected a number above 1e-30"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps: expected a number, got '1e-5'"),
        ({"use_parallel_residual": 1}, "use_parallel_residual: expected true or false, got 1"),
    ],
)
def test_a_config_that_no_gguf_can_express_is_refused_by_name(change, message):
    config = {key: value for key, value in (PYTHIA_410M | change).items() if value is not ...}
    with pytest.raises(ModelFileError) as caught:
        config_from_hf(config, "folder/config.json")
    assert str(caught.value).startswith("folder/config.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "llama"}, "general.architecture: expected 'gptneox' (Pythia, GPT-NeoX), got 'llama'"),
        ({"general.architecture": ...}, "general.architecture: expected 'gptneox'"),
        ({"general.architecture": np.uint32(1)}, "general.architecture: expected 'gptneox'"),
        ({"gptneox.block_count": np.uint32(0)}, "gptneox.block_count: expected 1..512, got 0"),
        ({"gptneox.block_count": np.uint32(513)}, "gptneox.block_count: expected 1..512, got 513"),
        ({"gptneox.block_count": np.uint32(2**32 - 1)}, "gptneox.block_count: expected 1..512, got 4294967295"),
        ({"gptneox.block_count": "24"}, "gptneox.block_count: expected a whole number, got '24'"),
        ({"gptneox.block_count": ...}, "gptneox.block_count: key is missing"),
        ({"gptneox.attention.head_count": np.uint32(0)}, "gptneox.attention.head_count: expected 1..65536, got 0"),
        ({"gptneox.attention.head_count": np.uint32(5)}, "expected a divisor of the width 1024, got 5"),
        ({"gptneox.embedding_length": np.uint32(0)}, "gptneox.embedding_length: expected 1..1048576, got 0"),
        ({"gptneox.embedding_length": np.uint32(2**31)}, "gptneox.embedding_length: expected 1..1048576"),
        (
            {"gptneox.rope.dimension_count": np.uint32(0)},
            "expected an even number of rotated dimensions in 2..64, got 0",
        ),
        (
            {"gptneox.rope.dimension_count": np.uint32(66)},
            "expected an even number of rotated dimensions in 2..64, got 66",
        ),
        (
            {"gptneox.rope.dimension_count": np.uint32(15)},
            "expected an even number of rotated dimensions in 2..64, got 15",
        ),
        ({"gptneox.context_length": np.uint32(0)}, "gptneox.context_length: expected 1..2147483647, got 0"),
        ({"gptneox.context_length": np.uint32(2**32 - 1)}, "gptneox.context_length: expected 1..2147483647"),
        (
            {"gptneox.attention.layer_norm_epsilon": np.float32("nan")},
            "expected a number above 1e-30 and at most 1, got nan",
        ),
        (
            {"gptneox.attention.layer_norm_epsilon": np.float32(-1)},
            "expected a number above 1e-30 and at most 1, got -1.0",
        ),
        ({"gptneox.attention.layer_norm_epsilon": ...}, "gptneox.attention.layer_norm_epsilon: key is missing"),
        ({"gptneox.use_parallel_residual": ...}, "gptneox.use_parallel_residual: key is missing"),
        ({"gptneox.use_parallel_residual": np.uint32(1)}, "gptneox.use_parallel_residual: expected true or false"),
        ({"gptneox.attention.head_count_kv": np.uint32(4)}, "gptneox.attention.head_count_kv: expected 16, got"),
        (
            {"gptneox.attention.head_count_kv": np.full(24, 16, np.uint32)},
            "gptneox.attention.head_count_kv: expected 16",
        ),
        ({"gptneox.attention.head_count": np.full(24, 16, np.uint32)}, "expected a whole number, got array"),
        ({"general.architecture": np.arange(3)}, "general.architecture: expected 'gptneox'"),
        ({"gptneox.attention.layer_norm_epsilon": ["1"]}, "layer_norm_epsilon: expected a number, got ['1']"),
        ({"gptneox.attention.key_length": np.uint32(128)}, "gptneox.attention.key_length: expected 64, got"),
        ({"gptneox.rope.scaling.type": "yarn"}, "gptneox.rope.scaling.type: expected 'none', got 'yarn'"),
        ({"gptneox.rope.scaling.factor": np.float32(4)}, "gptneox.rope.scaling.factor: expected 1.0, got"),
        ({"gptneox.rope.freq_base": np.float32(0)}, "gptneox.rope.freq_base: expected a number above 1"),
        ({"tokenizer.ggml.tokens": ...}, "gptneox.vocab_size: key is missing"),
        ({"tokenizer.ggml.tokens": [], "gptneox.vocab_size": np.uint32(0)}, "gptneox.vocab_size: expected 1..16777216"),
    ],
)
def test_gguf_keys_that_cannot_be_are_refused_by_name(change, message):
    keys = {key: value for key, value in (GGUF | change).items() if value is not ...}
    with pytest.raises(ModelFileError) as caught:
        config_from_gguf(keys, "model.gguf")
    assert str(caught.value).startswith("model.gguf: ")
    assert message in str(caught.value)


def test_a_gguf_without_vocabulary_may_say_its_size():
    keys = without(GGUF, "tokenizer.ggml.tokens") | {"gptneox.vocab_size": np.uint32(7)}
    assert config_from_gguf(keys, "model.gguf").n_vocab == 7
