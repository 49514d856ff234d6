"""Names map both ways, shapes add up to the published parameter counts, and QKV rows move as one permutation."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from pythia_gguf.arch import ModelConfig
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.errors import ModelFileError


def config_of(n_layers: int, hidden: int, n_heads: int, n_vocab: int = 50304) -> ModelConfig:
    return ModelConfig(
        architecture="gptneox",
        n_layers=n_layers,
        n_heads=n_heads,
        hidden=hidden,
        n_ffn=4 * hidden,
        n_context=2048,
        n_vocab=n_vocab,
        rotary_dims=2,
        rope_base=10000.0,
        layer_norm_eps=1e-5,
        parallel_residual=True,
        hidden_act="gelu",
        tied_embeddings=False,
    )


# layers, width, heads, rows of the embedding, parameters: the model cards of EleutherAI/pythia-*.
PUBLISHED = {
    "14m": (6, 128, 4, 50304, 14_067_712),
    "70m": (6, 512, 8, 50304, 70_426_624),
    "160m": (12, 768, 12, 50304, 162_322_944),
    "410m": (24, 1024, 16, 50304, 405_334_016),
    "1b": (16, 2048, 8, 50304, 1_011_781_632),
    "1.4b": (24, 2048, 16, 50304, 1_414_647_808),
    "2.8b": (32, 2560, 32, 50304, 2_775_208_960),
    "6.9b": (32, 4096, 32, 50432, 6_857_302_016),
    "12b": (36, 5120, 40, 50688, 11_846_072_320),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_shapes_add_up_to_the_published_number_of_parameters(size):
    n_layers, hidden, n_heads, n_vocab, n_params = PUBLISHED[size]
    shapes = GPT_NEOX.tensor_shapes(config_of(n_layers, hidden, n_heads, n_vocab))
    assert sum(map(prod, shapes.values())) == n_params
    assert len(shapes) == 4 + 12 * n_layers


def test_names_map_to_hugging_face_and_back():
    for name in GPT_NEOX.tensor_shapes(config_of(512, 8, 2)):
        assert GPT_NEOX.gguf_name(GPT_NEOX.hf_name(name, path="x"), path="x") == name


def test_names_are_those_of_the_published_checkpoints():
    # model.safetensors of EleutherAI/pythia-70m, layer 10 standing for all.
    layer, block = "gpt_neox.layers.10.", "blk.10."
    pairs = {
        "gpt_neox.embed_in.weight": "token_embd.weight",
        "embed_out.weight": "output.weight",
        "gpt_neox.final_layer_norm.weight": "output_norm.weight",
        "gpt_neox.final_layer_norm.bias": "output_norm.bias",
        f"{layer}input_layernorm.weight": f"{block}attn_norm.weight",
        f"{layer}attention.query_key_value.bias": f"{block}attn_qkv.bias",
        f"{layer}attention.dense.weight": f"{block}attn_output.weight",
        f"{layer}post_attention_layernorm.bias": f"{block}ffn_norm.bias",
        f"{layer}mlp.dense_h_to_4h.weight": f"{block}ffn_up.weight",
        f"{layer}mlp.dense_4h_to_h.weight": f"{block}ffn_down.weight",
    }
    assert {theirs: GPT_NEOX.gguf_name(theirs, path="x") for theirs in pairs} == pairs


def test_the_name_that_transformers_5_uses_in_memory_is_the_output_matrix():
    assert GPT_NEOX.gguf_name("lm_head.weight", path="x") == "output.weight"
    assert GPT_NEOX.hf_name("output.weight", path="x") == "embed_out.weight"


@pytest.mark.parametrize("buffer", ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"])
def test_buffers_of_old_checkpoints_are_left_out(buffer):
    assert GPT_NEOX.gguf_name(f"gpt_neox.layers.3.{buffer}", path="x") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lm_head.bias",
        "embed_out.bias",
        "gpt_neox.embed_in.bias",
        "gpt_neox.layers.0.attention.query_key_value",
        "gpt_neox.layers.00.attention.dense.weight",
        "gpt_neox.layers.512.attention.dense.weight",
        "gpt_neox.layers.-1.attention.dense.weight",
        "gpt_neox.layers.\u0661.attention.dense.weight",
        "gpt_neox.layers.0.mlp.gate.weight",
        "gpt_neox.layers.0.embed_in.weight",
        "gpt_neox.layers.0.attention.dense.weight\n",
        "model.gpt_neox.embed_in.weight",
        "token_embd.weight",
        "None.weight",
    ],
)
def test_other_names_are_refused_with_the_file_and_the_name(name):
    with pytest.raises(ModelFileError, match="no tensor of a GPT-NeoX model") as caught:
        GPT_NEOX.gguf_name(name, path="model.safetensors")
    assert str(caught.value).startswith("model.safetensors: tensor ")
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ModelFileError, match=r"Did you mean gpt_neox\.layers\.0\.attention\.dense\.weight"):
        GPT_NEOX.gguf_name("gpt_neox.layers.0.attention.dens.weight", path="x")
    with pytest.raises(ModelFileError, match=r"Did you mean blk\.0\.attn_qkv\.weight"):
        GPT_NEOX.hf_name("blk.0.attn_q.weight", path="x")


def test_roles_and_layers_of_all_names():
    names = GPT_NEOX.tensor_shapes(config_of(2, 8, 2))
    assert {GPT_NEOX.role_of(name) for name in names if GPT_NEOX.layer_of(name) is None} == {
        "token_embd",
        "output",
        "output_norm",
    }
    assert {GPT_NEOX.role_of(name) for name in names if GPT_NEOX.layer_of(name) == 1} == {
        "attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down",
    }  # fmt: skip
    assert GPT_NEOX.role_of("blk.1.attn_qkv.bias") == GPT_NEOX.role_of("blk.1.attn_qkv.weight") == "attn_qkv"
    with pytest.raises(ValueError, match="no tensor of a GPT-NeoX model"):
        GPT_NEOX.role_of("blk.0.attn_v.weight")


def test_order_is_by_layer_number_then_name():
    # The order llama-quantize gives its files; layer 10 comes after layer 9.
    names = list(GPT_NEOX.tensor_shapes(config_of(11, 8, 2)))
    assert names[:6] == [
        "output.weight",
        "output_norm.bias",
        "output_norm.weight",
        "token_embd.weight",
        "blk.0.attn_norm.bias",
        "blk.0.attn_norm.weight",
    ]
    assert names[-1] == "blk.10.ffn_up.weight"
    assert names[-13] == "blk.9.ffn_up.weight"


def test_qkv_runs_are_the_permutation_that_separates_q_k_and_v():
    config = config_of(1, 12, 3)  # heads of 4 rows
    moved = np.empty(36, dtype=int)
    for start, source, n in GPT_NEOX.row_runs(config)["attn_qkv"]:
        moved[start : start + n] = np.arange(source, source + n)
    # By hand, head 0 of q, k and v: source rows 0-3, 4-7, 8-11.
    assert moved[0:4].tolist() == [0, 1, 2, 3]
    assert moved[12:16].tolist() == [4, 5, 6, 7]
    assert moved[24:28].tolist() == [8, 9, 10, 11]
    assert np.array_equal(moved, np.arange(36).reshape(3, 3, 4).transpose(1, 0, 2).reshape(-1))
    assert [start for start, _, _ in GPT_NEOX.row_runs(config)["attn_qkv"]] == list(range(0, 36, 4))
