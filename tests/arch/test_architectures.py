"""What holds of every architecture in the table; transformers says which tensors its class has, and of which shapes."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from pythia_gguf.arch import ARCHITECTURES, Architecture, ModelConfig, config_from_gguf, config_from_hf
from pythia_gguf.errors import ModelFileError

EVERY = [pytest.param(a, id=name) for name, a in ARCHITECTURES.items()]


def small(architecture: Architecture) -> ModelConfig:
    """Sizes that all differ, so that none stands for another."""
    return ModelConfig(
        architecture=architecture.name,
        n_layers=2,
        n_heads=3,
        hidden=24,
        n_ffn=40,
        n_context=16,
        n_vocab=11,
        rotary_dims=4,
        rope_base=5e4,
        layer_norm_eps=2.0**-10,
        parallel_residual=False,
        hidden_act="gelu_new",
        tied_embeddings=False,
    )


def hf_config(architecture: Architecture) -> dict[str, object]:
    keys = architecture.hf_keys(small(architecture))
    return keys | {"model_type": architecture.hf_type, "hidden_act": "gelu_new"}


def test_table_is_keyed_by_name_and_each_config_has_one_entry():
    assert [a.name for a in ARCHITECTURES.values()] == list(ARCHITECTURES)
    assert len({a.hf_type for a in ARCHITECTURES.values()}) == len(ARCHITECTURES)


@pytest.mark.parametrize("architecture", EVERY)
def test_sizes_come_back_from_the_keys_of_both_sides(architecture: Architecture):
    config = small(architecture)
    assert config_from_hf(hf_config(architecture), "config.json") == (config, ())
    keys = architecture.gguf_keys(config) | {"tokenizer.ggml.tokens": list("abcdefghijk")}
    back = config_from_gguf({"general.architecture": architecture.name} | keys, "model.gguf")
    assert {name for name in ModelConfig.__slots__ if getattr(back, name) != getattr(config, name)} == {"hidden_act"}


@pytest.mark.parametrize("architecture", EVERY)
def test_tensors_are_those_of_its_class_in_transformers(architecture: Architecture):
    kind = getattr(transformers, architecture.hf_class)
    state = kind(kind.config_class(**hf_config(architecture))).state_dict()
    theirs = {architecture.gguf_name(name, path="x"): tuple(tensor.shape) for name, tensor in state.items()}
    assert architecture.tensor_shapes(small(architecture)) == theirs


@pytest.mark.parametrize("architecture", EVERY)
def test_roles_are_those_of_the_tensors(architecture: Architecture):
    config = small(architecture)
    shapes = architecture.tensor_shapes(config)
    roles = {architecture.role_of(name) for name in shapes}
    assert roles == set(architecture.shapes(config)) == {*architecture.modules, *architecture.layer_modules}
    assert {architecture.role_of(f"{name.rpartition('.')[0]}.weight") for name in shapes} == roles
    lonely = {architecture.role_of(n) for n in shapes if n.replace(".weight", ".bias") not in shapes}
    assert lonely == set(architecture.without_bias)
    assert {architecture.layer_of(name) for name in shapes} == {None, 0, 1}
    first, second = architecture.embeddings
    assert shapes[first] == shapes[second]


@pytest.mark.parametrize("architecture", EVERY)
def test_rows_in_another_order_are_all_there_once(architecture: Architecture):
    config = small(architecture)
    for role, runs in architecture.row_runs(config).items():
        n_rows = architecture.shapes(config)[role][0]
        here = np.concatenate([np.arange(start, start + n) for start, _, n in runs])
        there = np.concatenate([np.arange(source, source + n) for _, source, n in runs])
        assert here.tolist() == list(range(n_rows))
        assert sorted(there.tolist()) == list(range(n_rows))
        assert here.tolist() != there.tolist(), "rows that stay in place are left out"


@pytest.mark.parametrize("architecture", EVERY)
def test_tensor_of_a_model_without_its_head_is_told(architecture: Architecture):
    for hf_name in (architecture.hf_name(name, path="x") for name in architecture.tensor_shapes(small(architecture))):
        inner = hf_name.removeprefix(architecture.body_prefix)
        if inner != hf_name:
            with pytest.raises(ModelFileError, match="is of a model without an output matrix"):
                architecture.gguf_name(inner, path="x")
