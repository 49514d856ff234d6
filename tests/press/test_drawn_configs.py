"""200 configs drawn from the list of keys: the logits are those of transformers, or one line refuses the config.

Oracle: transformers 5 in float32, which loads the same folder. Each draw knows whether it must be refused, so neither a
key that is let through nor one that is refused needlessly can hide.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import GPTNeoXForCausalLM

from press import tiny
from pythia_gguf import load, quantize
from pythia_gguf.arch.activation import GELU_OF_ACT
from pythia_gguf.arch.config_keys import MEANS_NOTHING, REFUSED
from pythia_gguf.errors import ModelFileError

N_CONFIGS = 200
IDS = [(7 * i + 3) % 250 for i in range(24)]
Config = dict[str, object]
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

# Of the keys that mean nothing, those that transformers takes only certain values of; others take anything.
_ANYTHING: tuple[object, ...] = (None, 0, 1.5, "x", True, [1], {"a": 1})
_SWITCH = (True, False)
TYPED: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("is_decoder", "output_hidden_states", "use_cache"), _SWITCH),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "classifier_dropout"), (0.0, 0.1, 0.5)),
    **dict.fromkeys(("dtype", "torch_dtype"), ("float16", "bfloat16", "float32", None)),
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), ("eager", "sdpa", None)),
    **dict.fromkeys(("transformers_version", "name_or_path"), ("4.57.6", "5.24.0")),
    **dict.fromkeys(("fusion_config", "distributed_config"), (None,)),
    **dict.fromkeys(("experts_implementation", "_experts_implementation"), (None,)),
    "id2label": ({"0": "a", "1": "b", "2": "c"}, None),
    "label2id": ({"a": 0, "b": 1}, None),
    "num_labels": (2, 3),
    "problem_type": ("regression", "multi_label_classification", None),
    "chunk_size_feed_forward": (0, 4),
    "initializer_range": (0.02, 0.5),
    "gradient_checkpointing": _SWITCH,
    "output_attentions": (False,),
    "return_dict": (True,),
    "cache_implementation": ("dynamic", "static"),
    "early_stopping": (True, "never"),
    "max_new_tokens": (20,),
    "num_return_sequences": (1, True),
    "suppress_tokens": ([99], None),
    "tie_last_hidden_states": _SWITCH,
    "torchscript": _SWITCH,
}
# Values of keys that may say one thing only; others: null, and what the next table refuses.
HARMLESS: dict[str, tuple[object, ...]] = {
    "attention_bias": (True,),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "per_layer_config": ({},),
}
HARMFUL: dict[str, tuple[object, ...]] = {
    "attention_bias": (False, None),
    "is_causal": (False,),
    "is_encoder_decoder": (True,),
    "head_dim": (6, "8"),
    "layer_types": (["sliding_attention"], "full_attention"),
    "pruned_heads": ({"0": [1]},),
}
MISSPELLED = ("rotary_pctt", "rotary_emb_bas", "layer_norm_epsilon", "hidden_acts")
STRANGE = ("my_note", "wandb_run", "n_positions", "embd_pdrop", "seq_length", "auto_map")


def sizes(rng: random.Random) -> Config:
    """A model that is small in an odd way; any share of a head of 16 that is drawn below rotates an even number."""
    n_heads = rng.choice((1, 2, 3))
    return tiny.config() | {
        "hidden_size": 16 * n_heads,
        "num_attention_heads": n_heads,
        "num_hidden_layers": rng.choice((1, 2)),
        "intermediate_size": rng.choice((32, 40, 96)),
        "max_position_embeddings": rng.choice((32, 2048)),
        "hidden_act": rng.choice(sorted(GELU_OF_ACT)),
        "layer_norm_eps": rng.choice((1e-5, 1e-3, 1e-12)),
        "use_parallel_residual": rng.choice(_SWITCH),
        "tie_word_embeddings": rng.choice(_SWITCH),
    }


def rotation(rng: random.Random) -> Config:
    """Rotary keys in any spelling, several of them at once."""
    bases, shares = (500, 10000, 50000.0), (0.25, 0.5, 1.0)
    keys: Config = {}
    for key, values in (
        ("rotary_emb_base", bases),
        ("rotary_pct", shares),
        ("rope_theta", (*bases, None)),
        ("partial_rotary_factor", (*shares, None)),
    ):
        if rng.random() < 0.4:
            keys[key] = rng.choice(values)
    for name in ("rope_scaling", "rope_parameters"):
        if rng.random() < 0.4:
            rope: Config = {}
            if rng.random() < 0.7:
                rope[rng.choice(("rope_type", "type"))] = "default"
            if rng.random() < 0.5:
                rope["rope_theta"] = rng.choice(bases)
            if rng.random() < 0.5:
                rope["partial_rotary_factor"] = rng.choice(shares)
            if rng.random() < 0.1:
                rope["factor"] = rng.choice((1.0, 4.0))
            keys[name] = rng.choice((rope, rope, rope, None))
    return keys


def draw(rng: random.Random) -> tuple[Config, str | None]:
    """A config, and the key that it must be refused for; None: it must be read."""
    config = {k: v for k, v in sizes(rng).items() if not k.startswith("rotary")} | rotation(rng)
    for key in ("hidden_act", "layer_norm_eps", "use_parallel_residual", "tie_word_embeddings"):
        if rng.random() < 0.1:
            del config[key]
    for key in rng.sample(sorted(MEANS_NOTHING), 12):
        config[key] = rng.choice(TYPED.get(key, _ANYTHING))
    for key in rng.sample(sorted(REFUSED), 3):
        if values := HARMLESS.get(key):
            config[key] = rng.choice(values)
    config |= {key: rng.choice(_ANYTHING[1:]) for key in rng.sample(STRANGE, 2)}
    if rng.random() < 0.75:
        return config, None
    kind = rng.randrange(4)
    if kind == 0:
        key = rng.choice(sorted(REFUSED))
        return config | {key: rng.choice(HARMFUL.get(key, ({"x": 1}, 7)))}, key
    if kind == 1:
        wrong = {"hidden_act": "relu", "rotary_pct": 0.0, "rotary_emb_base": "1e4", "layer_norm_eps": None}
        key = rng.choice(sorted(wrong))
        return config | {key: wrong[key]}, key
    if kind == 2:
        scaled = {"rope_type": rng.choice(("linear", "dynamic", "yarn", "llama3")), "factor": 2.0}
        return config | {"rope_scaling": scaled}, "rope_scaling"
    key = rng.choice(MISSPELLED)
    for right in ("rotary_pct", "rotary_emb_base", "layer_norm_eps", "hidden_act"):
        config.pop(right, None)
    return config | {key: 0.5}, key


def write(folder: Path, config: Config, seed: int) -> None:
    """Weights that float16 holds, of a size at which every key matters."""
    model = GPTNeoXForCausalLM(GPTNeoXForCausalLM.config_class(**{key: config[key] for key in _SIZES}))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, values in model.state_dict().items():
        name = name.replace("lm_head", "embed_out")
        if name == "embed_out.weight" and config.get("tie_word_embeddings"):
            continue
        is_norm = "norm" in name and name.endswith("weight")
        drawn = float(is_norm) + 0.25 * torch.randn(values.shape, generator=generator)
        tensors[name] = drawn.half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tiny.tokenizer()))


@pytest.mark.slow
def test_logits_are_those_of_transformers_or_the_config_is_refused(tmp_path: Path):
    rng = random.Random(15)
    n_refused = 0
    for i in range(N_CONFIGS):
        config, refused_for = draw(rng)
        folder = tmp_path / str(i)
        folder.mkdir()
        write(folder, config, i)
        if refused_for is not None:
            with pytest.raises(ModelFileError, match=rf"config\.json: {refused_for}\b") as caught:
                quantize(folder, folder / "out", quants=[], keep_f16=True)
            assert str(caught.value).isprintable()
            n_refused += 1
            continue
        made = quantize(folder, folder / "out", quants=[], keep_f16=True)
        ours = load(made.files[0].path, cache="f32").logits(IDS)
        model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            theirs = model(torch.tensor([IDS]), return_dict=True).logits[0].numpy()
        # float32 against float32: 7e-6 at most; a rotary key that is not followed moves them by 0.2 and more.
        assert np.abs(ours - theirs).max() / theirs.std() < 1e-4, config
    assert 30 < n_refused < 80
