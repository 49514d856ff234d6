"""Small GPT-NeoX folders for the conversion goldens: the same texts and weights for the script and for the tests.

It imports neither pythia_gguf nor torch, so that it also runs where the real converter runs. Weights are values that
float16 and bfloat16 both hold exactly, unless a case stores float32.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CONFIG: dict[str, object] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "attention_bias": True,
    "bos_token_id": 0,
    "classifier_dropout": 0.1,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 64,
    "model_type": "gpt_neox",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "rope_scaling": None,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.57.6",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
PYTHIA_70M = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "max_position_embeddings": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
}
PYTHIA_410M = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "max_position_embeddings": 2048,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
}
TOKENIZER_CONFIG: dict[str, object] = {
    "add_prefix_space": False,
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "tokenizer_class": "GPTNeoXTokenizer",
    "unk_token": "<|endoftext|>",
}
EMPTY_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}
PYTHIA_README = """---
language:
- en
tags:
- pytorch
- causal-lm
- pythia
license: apache-2.0
datasets:
- EleutherAI/the_pile_deduplicated
---

# A model
"""
FULL_README = """---
model_name: A Name of its Own
model_creator: Some Body
version: v2.5
organization: Some Lab
description: 'Two lines:

  of text'
license: [mit, apache-2.0]
license_name: two-licenses
license_link: LICENSE.md
base_model:
- EleutherAI/pythia-1.4b-deduped-v0
- https://huggingface.co/EleutherAI/gpt-neox-20b
- https://example.org/models/other
- {name: Hand Written, author: Me, doi: 10.1/2, unknown: ignored}
datasets:
- https://huggingface.co/datasets/EleutherAI/pile
- HuggingFaceH4/no_robots
- plain
language:
- en
- no
- de
languages: fr
tags:\tone
pipeline_tag: text-generation
url: https://example.org
repo_url: https://example.org/repo
---
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """One folder and the way it is converted.

    folder       its name
    config       changes to CONFIG; a value of `...` leaves the key out
    files        further files by name: text as it is, anything else as JSON
    tokenizer    "20b" or "nano"
    weights      dtype of all tensors: "F16", "BF16", "F32", or "zeros" for float16 zeros that tests do not rebuild
    mixed        other dtypes of some tensors, by name
    container    "safetensors", "shards" or "bin"
    outtype      the converter's option
    template     tokenizer.json has the post-processor that transformers 4.57 and 5 write for GPT-NeoX
    """

    folder: str
    config: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, object] = field(default_factory=dict)
    tokenizer: str = "20b"
    weights: str = "F16"
    mixed: Mapping[str, str] = field(default_factory=dict)
    container: str = "safetensors"
    outtype: str = "auto"
    template: bool = False


# Models saved with a float32 head, or with parts in the other half precision.
MIXED = {
    "embed_out.weight": "F32",
    "gpt_neox.layers.1.attention.query_key_value.weight": "F32",
    "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": "F16",
    "gpt_neox.layers.1.mlp.dense_4h_to_h.weight": "BF16",
    "gpt_neox.layers.1.input_layernorm.weight": "F32",
}


def _tuned(**changes: object) -> dict[str, object]:
    return {"tokenizer_config.json": TOKENIZER_CONFIG | changes}


TOKENS = {"tokenizer_config.json": TOKENIZER_CONFIG}
CARD = {"README.md": PYTHIA_README}
CASES: dict[str, Toy] = {
    "70m": Toy(folder="pythia-70m", config=PYTHIA_70M, files=TOKENS | CARD, weights="zeros"),
    "410m-deduped-v0": Toy(folder="pythia-410m-deduped-v0", config=PYTHIA_410M, files=TOKENS | CARD, weights="zeros"),
    "bare": Toy(folder="model"),
    "with-card": Toy(folder="pythia-1.6m-deduped", files=TOKENS | CARD),
    "full-card": Toy(folder="pythia-1.6m", files=TOKENS | {"README.md": FULL_README}),
    "card-only-tags": Toy(folder="toy", files=TOKENS | {"README.md": "---\npipeline_tag: x\nlanguage: no\n---\n"}),
    "card-without-front-matter": Toy(folder="toy", files=TOKENS | {"README.md": "# Toy\n---\nlicense: mit\n---\n"}),
    "card-empty": Toy(folder="toy", files=TOKENS | {"README.md": ""}),
    "card-no-mapping": Toy(folder="toy", files=TOKENS | {"README.md": "---\n- a\n- b\n---\n"}),
    "card-null-origins": Toy(
        folder="toy", files=TOKENS | {"README.md": "---\nbase_model:\ndatasets: []\ntags: []\nlicense: ''\n---\n"}
    ),
    "card-unclosed": Toy(folder="toy", files=TOKENS | {"README.md": "---\r\nlicense: mit\r\nsize_label: 7Q\r\n"}),
    "name-step": Toy(folder="pythia-70m-step3000", files=TOKENS),
    "name-far-size": Toy(folder="pythia-1.4b-deduped", files=TOKENS),
    "name-chat": Toy(folder="Pythia-Chat-Base-7B", files=TOKENS),
    "name-20b": Toy(folder="gpt-neox-20b", files=TOKENS),
    "name-spaces": Toy(folder="My Pythia 2M fine-tune", files=TOKENS),
    "name-dots": Toy(folder="pythia_2.1M.step1000-v1.2", files=TOKENS),
    "name-hash": Toy(folder="9879c9b5f8bea9051dcb0e68dff21493d67e9d4f", files=TOKENS),
    "name-in-config": Toy(
        folder="checkpoint-500", config={"_name_or_path": "EleutherAI/pythia-1.7m-deduped-v1"}, files=TOKENS
    ),
    "name-path-in-config": Toy(
        folder="pythia-1.6m-mine", config={"_name_or_path": "/data/models/pythia-9m"}, files=TOKENS
    ),
    "name-empty-in-config": Toy(folder="pythia-1.6m-mine", config={"_name_or_path": ""}, files=TOKENS),
    "sampling": Toy(
        folder="toy",
        files=TOKENS
        | {
            "generation_config.json": {
                "_from_model_config": True,
                "temperature": 0.7,
                "top_k": 40,
                "top_p": 1,
                "min_p": 0.05,
                "repetition_penalty": 1.1,
                "penalty_last_n": 64,
                "mirostat": None,
                "sequence": "top_k;temp",
                "do_sample": True,
                "eos_token_id": 0,
            }
        },
    ),
    "sampling-broken": Toy(folder="toy", files=TOKENS | {"generation_config.json": "{not JSON"}),
    "tokens-pad-and-flags": Toy(
        folder="toy",
        files=_tuned(
            tokenizer_class="PreTrainedTokenizerFast", pad_token="<|padding|>", add_bos_token=True, add_sep_token=True
        ),
    ),
    "tokens-as-objects": Toy(
        folder="toy",
        config={"pad_token_id": 1, "sep_token_id": 0, "cls_token_id": 0, "eos_token_id": [0, 1]},
        files=_tuned(
            bos_token={"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False},
            eos_token=None,
            mask_token="<|padding|>",
        ),
    ),
    "tokens-only-in-config": Toy(folder="toy", config={"pad_token_id": 1}),
    "tokens-only-unk": Toy(folder="toy", files={"tokenizer_config.json": {"unk_token": "<|endoftext|>"}}),
    "tokens-cls-and-sep": Toy(
        folder="toy",
        config={"bos_token_id": ..., "eos_token_id": ...},
        files={"tokenizer_config.json": {"cls_token": "<|endoftext|>", "sep_token": "<|padding|>"}},
    ),
    "template": Toy(folder="toy", files=TOKENS, template=True),
    "template-and-flags": Toy(folder="toy", files=_tuned(add_eos_token=False, add_bos_token=False), template=True),
    "chat-template": Toy(folder="toy", files=_tuned(chat_template="{{ messages }}")),
    "chat-template-file": Toy(
        folder="toy", files=TOKENS | {"chat_template.jinja": "{% for m in messages %}{% endfor %}\n"}
    ),
    "chat-template-json": Toy(folder="toy", files=TOKENS | {"chat_template.json": {"chat_template": "{{ x }}"}}),
    "chat-template-list": Toy(
        folder="toy",
        files=_tuned(
            chat_template=[{"name": "default", "template": "{{ a }}"}, {"name": "tool-use", "template": "{{ b }}"}]
        ),
    ),
    "chat-template-without-config": Toy(folder="toy", files={"chat_template.jinja": "{{ x }}"}),
    "vocabulary-padded": Toy(folder="toy", config={"vocab_size": 50432}, files=TOKENS),
    "vocabulary-exact": Toy(folder="toy", config={"vocab_size": 50277}, files=TOKENS),
    "sequential-residual": Toy(
        folder="toy",
        config={"use_parallel_residual": False, "rotary_pct": 1.0, "layer_norm_eps": 1e-06, "num_attention_heads": 4},
        files=TOKENS,
    ),
    "keys-left-out": Toy(
        folder="toy",
        config=dict.fromkeys(("rotary_pct", "layer_norm_eps", "use_parallel_residual", "rotary_emb_base"), ...),
        files=TOKENS,
    ),
    "bf16": Toy(folder="toy", files=TOKENS, weights="BF16"),
    "f32": Toy(folder="toy", files=TOKENS, weights="F32"),
    "f16-as-f32": Toy(folder="toy", files=TOKENS, outtype="f32"),
    "bf16-as-f16": Toy(folder="toy", files=TOKENS, weights="BF16", outtype="f16"),
    "f16-as-bf16": Toy(folder="toy", files=TOKENS, outtype="bf16"),
    "f32-as-f32": Toy(folder="toy", files=TOKENS, weights="F32", outtype="f32"),
    "mixed-bf16-first": Toy(folder="toy", weights="BF16", mixed=MIXED),
    "mixed-f16-first": Toy(folder="toy", weights="F16", mixed=MIXED),
    "many-layers": Toy(folder="toy", config={"num_hidden_layers": 12}, files=TOKENS),
    "shards": Toy(folder="toy", files=TOKENS, container="shards"),
    "bin": Toy(folder="toy", files=TOKENS, container="bin"),
    "nano": Toy(folder="nano", config={"vocab_size": 4096}, files=TOKENS | CARD, tokenizer="nano"),
}


def toy_config(toy: Toy) -> dict[str, object]:
    """The config.json of a case."""
    return {key: value for key, value in (CONFIG | dict(toy.config)).items() if value is not ...}


def write_texts(toy: Toy, folder: Path, tokenizer: Path) -> None:
    """Write all files of a case except its weights into an empty folder."""
    if toy.template:
        data = json.loads(tokenizer.read_text("utf-8"))
        (folder / "tokenizer.json").write_text(json.dumps(data | {"post_processor": EMPTY_TEMPLATE}))
    else:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    for name, content in {"config.json": toy_config(toy), **toy.files}.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2)
        (folder / name).write_bytes(text.encode())


def tensor_shapes(toy: Toy) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes in the order of a state dict."""
    config = CONFIG | dict(toy.config)
    width, ffn, vocab = (int(config[key]) for key in ("hidden_size", "intermediate_size", "vocab_size"))  # type: ignore[call-overload]
    linears = {
        "attention.query_key_value": (3 * width, width),
        "attention.dense": (width, width),
        "mlp.dense_h_to_4h": (ffn, width),
        "mlp.dense_4h_to_h": (width, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (vocab, width)}
    for i in range(int(config["num_hidden_layers"])):  # type: ignore[call-overload]
        layer = f"gpt_neox.layers.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
    shapes |= {f"gpt_neox.final_layer_norm.{kind}": (width,) for kind in ("weight", "bias")}
    shapes["embed_out.weight"] = (vocab, width)
    return shapes


def buffers(toy: Toy) -> dict[str, np.ndarray]:
    """What old .bin files hold beside the weights; no other container has them."""
    if toy.container != "bin":
        return {}
    mask = np.tril(np.ones((1, 1, 8, 8), dtype=np.bool_))
    layer = "gpt_neox.layers.0.attention."
    return {
        f"{layer}bias": mask,
        f"{layer}masked_bias": np.array(-1e9, dtype=np.float32),
        f"{layer}rotary_emb.inv_freq": np.ones(1, dtype=np.float32),
    }


def toy_weights(toy: Toy) -> dict[str, np.ndarray]:
    """The weights as float32 in the order of `tensor_shapes`; the same on every machine.

    With weights "F32" they have 24 significant bits; otherwise 8 or fewer, which float16 and bfloat16 keep.
    """
    return {
        name: _values(i, shape, toy.mixed.get(name, toy.weights))
        for i, (name, shape) in enumerate(tensor_shapes(toy).items())
    }


@functools.lru_cache(maxsize=256)
def _values(seed: int, shape: tuple[int, ...], weights: str) -> np.ndarray:
    if weights == "zeros":
        return np.zeros(shape, dtype=np.float32)
    rng = np.random.Generator(np.random.PCG64(seed))
    whole = rng.integers(-(2**23), 2**23, shape, dtype=np.int32)
    if weights != "F32":
        whole = whole >> 16 << 16
    return (whole * np.float32(2.0**-24)).astype(np.float32)
