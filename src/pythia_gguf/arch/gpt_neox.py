"""GPT-NeoX, the architecture of Pythia: its tensors, its row order, and its sizes in config.json and in a GGUF.

We refuse by name everything that a GGUF of this architecture cannot express. Keys of a GGUF and the row order are those
of llama.cpp 0c1e57098 (conversion/gptneox.py, src/models/gptneox.cpp); config_keys.py lists the keys of a config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from pythia_gguf.arch.activation import DEFAULT_ACT, GELU_OF_ACT
from pythia_gguf.arch.architecture import Architecture, PathLike, RowRuns
from pythia_gguf.arch.config import MAX_LAYERS, ModelConfig
from pythia_gguf.arch.config_keys import check_keys
from pythia_gguf.arch.keys import Keys
from pythia_gguf.arch.rotary import DEFAULT_ROPE_BASE, ROPE_BASES, read_rotary
from pythia_gguf.errors import nearest, one_line

_NAME = "gptneox"
_CLASS = "GPTNeoXForCausalLM"

# field: (key in config.json, key in a GGUF, largest value)
_SIZES = {
    "n_context": ("max_position_embeddings", "gptneox.context_length", 2**31 - 1),
    "hidden": ("hidden_size", "gptneox.embedding_length", 2**20),
    "n_layers": ("num_hidden_layers", "gptneox.block_count", MAX_LAYERS),
    "n_ffn": ("intermediate_size", "gptneox.feed_forward_length", 2**22),
    "n_heads": ("num_attention_heads", "gptneox.attention.head_count", 2**16),
}
# llama.cpp reads a key with exactly one type and refuses the file for any other.
_GGUF_TYPES: dict[str, type[np.generic]] = {key: np.uint32 for _, key, _ in _SIZES.values()} | {
    "gptneox.rope.dimension_count": np.uint32,
    "gptneox.rope.freq_base": np.float32,
    "gptneox.attention.layer_norm_epsilon": np.float32,
    "gptneox.vocab_size": np.uint32,
}
_MAX_VOCAB = 2**24
_DEFAULT_CONTEXT = 2048  # of transformers
_OTHER_HEADS = re.compile("GPTNeoX(?:Model|For(?!CausalLM).*)")
_EPSILONS = (1e-30, 1.0)  # more than 0 in float32 too


def _read_hf_keys(config: Mapping[str, object], path: PathLike) -> tuple[ModelConfig, tuple[str, ...]]:
    """Read config.json as transformers 5 does, with the key names of 4, 5 or both.

    Raises ModelFileError for another class, a missing or impossible value, a misspelled key, and features that a GGUF
    cannot express: no attention biases, scaled positions, no GELU.
    """
    keys = Keys(config, path)
    notes = (*_check_class(keys), *check_keys(keys))
    # Only the context has a default: transformers' defaults for the other sizes are those of GPT-NeoX-20B.
    keys = Keys({"max_position_embeddings": _DEFAULT_CONTEXT} | dict(config), path)
    sizes = {field: keys.whole(key, 1, most) for field, (key, _, most) in _SIZES.items()}
    head_dim = _head_dim(keys, sizes, "num_attention_heads")
    rotary = read_rotary(keys)
    read = ModelConfig(
        architecture=_NAME,
        **sizes,
        n_vocab=keys.whole("vocab_size", 1, _MAX_VOCAB),
        rotary_dims=_rotary_dims(keys, int(rotary.share * head_dim), head_dim, "rotary_pct"),
        rope_base=rotary.base,
        layer_norm_eps=keys.number("layer_norm_eps", 1e-5, *_EPSILONS),
        parallel_residual=keys.switch("use_parallel_residual", True),
        hidden_act=_activation(keys),
        tied_embeddings=keys.switch("tie_word_embeddings", False),
    )
    return read, (*notes, *rotary.notes)


def _read_gguf_keys(metadata: Mapping[str, object], path: PathLike) -> ModelConfig:
    """Read the keys of a GGUF, which may come from any writer.

    Raises ModelFileError for a missing key, a wrong type or an impossible value.
    """
    keys = Keys(metadata, path)
    sizes = {field: keys.whole(key, 1, most) for field, (_, key, most) in _SIZES.items()}
    _refuse_other_types(keys)
    head_dim = _head_dim(keys, sizes, "gptneox.attention.head_count")
    _refuse_other_attention(keys, sizes["n_heads"], head_dim)
    rotary_key = "gptneox.rope.dimension_count"
    rotary_dims = keys.whole(rotary_key, 0, 2**20) if rotary_key in metadata else head_dim
    return ModelConfig(
        architecture=_NAME,
        **sizes,
        n_vocab=_vocabulary_size(keys),
        rotary_dims=_rotary_dims(keys, rotary_dims, head_dim, rotary_key),
        rope_base=keys.number("gptneox.rope.freq_base", DEFAULT_ROPE_BASE, *ROPE_BASES),
        layer_norm_eps=keys.number("gptneox.attention.layer_norm_epsilon", None, *_EPSILONS),
        parallel_residual=keys.switch("gptneox.use_parallel_residual", None),
        hidden_act=None,
        tied_embeddings=False,
    )


def _gguf_keys(config: ModelConfig) -> dict[str, bool | np.generic]:
    """The `gptneox.*` keys in the order and with the types of llama.cpp's converter.

    `gptneox.rope.freq_base` is our addition: llama.cpp reads it, but its converter never writes it, so a model with
    another base than 10000 runs wrongly there. Only such models get the key; all others have the same keys.
    """
    keys: dict[str, bool | np.generic] = {
        "gptneox.context_length": np.uint32(config.n_context),
        "gptneox.embedding_length": np.uint32(config.hidden),
        "gptneox.block_count": np.uint32(config.n_layers),
        "gptneox.feed_forward_length": np.uint32(config.n_ffn),
        "gptneox.rope.dimension_count": np.uint32(config.rotary_dims),
        "gptneox.attention.head_count": np.uint32(config.n_heads),
        "gptneox.use_parallel_residual": config.parallel_residual,
        "gptneox.attention.layer_norm_epsilon": np.float32(config.layer_norm_eps),
    }
    if config.rope_base != DEFAULT_ROPE_BASE:
        keys["gptneox.rope.freq_base"] = np.float32(config.rope_base)
    return keys


def _hf_keys(config: ModelConfig) -> dict[str, Any]:
    """Keys of transformers 4, and those of 5 for the rotation."""
    share = config.rotary_dims / config.head_dim
    if int(share * config.head_dim) != config.rotary_dims:  # rounded down where transformers multiplies again
        share = float(np.nextafter(share, 2))
    return {
        "attention_bias": True,
        "attention_dropout": 0.0,
        "classifier_dropout": 0.1,
        "hidden_dropout": 0.0,
        "hidden_size": config.hidden,
        "initializer_range": 0.02,
        "intermediate_size": config.n_ffn,
        "layer_norm_eps": config.layer_norm_eps,
        "max_position_embeddings": config.n_context,
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "rope_parameters": {
            "partial_rotary_factor": share,
            "rope_theta": config.rope_base,
            "rope_type": "default",
        },
        "rope_scaling": None,
        "rotary_emb_base": config.rope_base,
        "rotary_pct": share,
        "use_parallel_residual": config.parallel_residual,
        "vocab_size": config.n_vocab,
    }


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden
    return {
        "token_embd": (config.n_vocab, hidden),
        "output": (config.n_vocab, hidden),
        "output_norm": (hidden,),
        "attn_norm": (hidden,),
        "attn_qkv": (3 * hidden, hidden),
        "attn_output": (hidden, hidden),
        "ffn_norm": (hidden,),
        "ffn_up": (config.n_ffn, hidden),
        "ffn_down": (hidden, config.n_ffn),
    }


def _row_runs(config: ModelConfig) -> dict[str, RowRuns]:
    """Hugging Face stores q, k and v of head 0, then of head 1, ...; a GGUF all q, then all k, then all v."""
    rows = config.head_dim
    qkv = tuple(
        (part * config.hidden + head * rows, (3 * head + part) * rows, rows)
        for part in range(3)
        for head in range(config.n_heads)
    )
    return {"attn_qkv": qkv}


def _check_class(keys: Keys) -> list[str]:
    """A note on the class that the config names; transformers' AutoModelForCausalLM does not look at it."""
    names = keys.get("architectures", [])
    first = (names[0] if names else _CLASS) if isinstance(names, list) else None
    if not isinstance(first, str) or _OTHER_HEADS.fullmatch(first):
        keys.fail(f"expected [{_CLASS!r}], got {names!r}: no model that writes text", "architectures")
    is_other = first != _CLASS
    return [f"architectures names {one_line(first, 60)}: the model is read as {_CLASS}"] if is_other else []


def _refuse_other_types(keys: Keys) -> None:
    """Refuse numbers of another GGUF type; a value that is no number is refused where it is read."""
    for key, kind in _GGUF_TYPES.items():
        value = keys.get(key)
        if isinstance(value, np.generic) and not isinstance(value, kind):
            keys.fail(f"expected a {kind.__name__}, got a {type(value).__name__}", key)


def _refuse_other_attention(keys: Keys, n_heads: int, head_dim: int) -> None:
    """Refuse other values of keys that llama.cpp would follow, and that have one value in this architecture."""
    only = {
        "gptneox.attention.head_count_kv": n_heads,
        "gptneox.attention.key_length": head_dim,
        "gptneox.attention.value_length": head_dim,
        "gptneox.rope.scaling.type": "none",
        "gptneox.rope.scaling.factor": 1.0,
        "gptneox.rope.scale_linear": 1.0,
    }
    for key, expected in only.items():
        value = keys.get(key, expected)
        if isinstance(value, np.ndarray) or value != expected:
            keys.fail(f"expected {expected!r}, got {value!r}", key)


def _vocabulary_size(keys: Keys) -> int:
    tokens = keys.get("tokenizer.ggml.tokens", [])
    if not isinstance(tokens, list):
        keys.fail("expected an array of texts", "tokenizer.ggml.tokens")
    if not tokens:
        return keys.whole("gptneox.vocab_size", 1, _MAX_VOCAB)
    if len(tokens) > _MAX_VOCAB:
        keys.fail(f"expected at most {_MAX_VOCAB} tokens, got {len(tokens)}", "tokenizer.ggml.tokens")
    return len(tokens)


def _head_dim(keys: Keys, sizes: Mapping[str, int], key: str) -> int:
    hidden, n_heads = sizes["hidden"], sizes["n_heads"]
    if hidden % n_heads:
        keys.fail(f"expected a divisor of the width {hidden}, got {n_heads}", key)
    return hidden // n_heads


def _rotary_dims(keys: Keys, dims: int, head_dim: int, key: str) -> int:
    if dims % 2 or not 2 <= dims <= head_dim:
        keys.fail(f"expected an even number of rotated dimensions in 2..{head_dim}, got {dims}", key)
    return dims


def _activation(keys: Keys) -> str:
    value = keys.get("hidden_act", DEFAULT_ACT)
    if not isinstance(value, str) or value not in GELU_OF_ACT:
        hint = nearest(str(value)[:80], GELU_OF_ACT)
        keys.fail(f"a GGUF of this architecture always computes a GELU, got {value!r}{hint}", "hidden_act")
    return value


GPT_NEOX = Architecture(
    name=_NAME,
    title="GPT-NeoX",
    families="Pythia, GPT-NeoX",
    hf_type="gpt_neox",
    hf_class=_CLASS,
    read_hf_keys=_read_hf_keys,
    read_gguf_keys=_read_gguf_keys,
    gguf_keys=_gguf_keys,
    hf_keys=_hf_keys,
    modules={
        "token_embd": "gpt_neox.embed_in",
        "output_norm": "gpt_neox.final_layer_norm",
        "output": "embed_out",
    },
    layer_modules={
        "attn_norm": "input_layernorm",
        "attn_qkv": "attention.query_key_value",
        "attn_output": "attention.dense",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.dense_h_to_4h",
        "ffn_down": "mlp.dense_4h_to_h",
    },
    layers_prefix="gpt_neox.layers.",
    body_prefix="gpt_neox.",
    # transformers 5 calls embed_out lm_head in memory, and so torch.save writes it under that name.
    other_modules={"lm_head": "output"},
    without_bias=("token_embd", "output"),
    # Causal masks and rotation frequencies.
    buffers=(".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"),
    shapes=_shapes,
    row_runs=_row_runs,
    embeddings=("token_embd.weight", "output.weight"),
)
