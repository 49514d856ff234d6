"""The sizes of a GPT-NeoX model, read from a Hugging Face config.json or from GGUF metadata, and checked.

Knows no tensor and no file: it takes parsed keys. What a GGUF of this architecture cannot say is refused by name.
Keys of a GGUF are those of llama.cpp 0c1e57098 (conversion/gptneox.py, src/models/gptneox.cpp); those of a config.json
are listed in config_keys.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pythia_gguf.arch.config_keys import check_keys
from pythia_gguf.arch.keys import Keys
from pythia_gguf.arch.rotary import DEFAULT_ROPE_BASE, ROPE_BASES, read_rotary
from pythia_gguf.errors import nearest, one_line

ARCHITECTURE = "gptneox"
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS

# The formula behind each activation name of transformers (activations.py); llama.cpp always computes tanh.
GELU_OF_ACT = {
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
}

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
_CLASS = "GPTNeoXForCausalLM"
_OTHER_HEADS = re.compile("GPTNeoX(?:Model|For(?!CausalLM).*)")
_EPSILONS = (1e-30, 1.0)  # more than 0 in float32 too


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTNeoXConfig:
    """What a GPT-NeoX model is.

    n_context          positions it was trained for, in tokens
    rotary_dims        first dimensions of each head that are rotated; even
    rope_base          base of the rotation frequencies
    parallel_residual  attention and feed-forward both read the block's input
    hidden_act         activation as config.json names it; None from a GGUF, which has no key for it
    tied_embeddings    one matrix is both embeddings and output; a GGUF holds it twice
    """

    n_layers: int
    n_heads: int
    hidden: int
    n_ffn: int
    n_context: int
    n_vocab: int
    rotary_dims: int
    rope_base: float
    layer_norm_eps: float
    parallel_residual: bool
    hidden_act: str | None
    tied_embeddings: bool

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden // self.n_heads

    @property
    def gelu(self) -> str | None:
        """The formula of the activation, "erf" or "tanh"; None when the source does not say."""
        return None if self.hidden_act is None else GELU_OF_ACT[self.hidden_act]


def config_from_hf(config: Mapping[str, object], path: str | os.PathLike[str]) -> tuple[GPTNeoXConfig, tuple[str, ...]]:
    """Read the parsed config.json of a GPTNeoXForCausalLM, as transformers 5 does, with the key names of 4, 5 or both.

    path    where it came from, for messages
    Returns the config, and what the user should know of keys that were left out or mean something else to
            transformers 4, one line each
    Raises  ModelFileError for another model, a missing or impossible value, a misspelled key, and what a GGUF cannot
            express: no attention biases, scaled positions, no GELU.
    """
    keys = Keys(config, path)
    notes = (*_refuse_other_models(keys), *check_keys(keys))
    # Weights have the other sizes, and nobody means transformers' defaults for them, those of GPT-NeoX-20B.
    keys = Keys({"max_position_embeddings": _DEFAULT_CONTEXT} | dict(config), path)
    sizes = {field: keys.whole(key, 1, most) for field, (key, _, most) in _SIZES.items()}
    head_dim = _head_dim(keys, sizes, "num_attention_heads")
    rotary = read_rotary(keys)
    read = GPTNeoXConfig(
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


def config_from_gguf(metadata: Mapping[str, object], path: str | os.PathLike[str]) -> GPTNeoXConfig:
    """Read the keys of a GPT-NeoX GGUF, which may come from any writer.

    path    where they came from, for messages
    Raises  ModelFileError for another architecture, a missing key, a wrong type or an impossible value.
    """
    keys = Keys(metadata, path)
    name = keys.get("general.architecture", "")
    if not isinstance(name, str) or name != ARCHITECTURE:
        keys.fail(f"expected {ARCHITECTURE!r} (Pythia, GPT-NeoX), got {name!r}", "general.architecture")
    sizes = {field: keys.whole(key, 1, most) for field, (_, key, most) in _SIZES.items()}
    _refuse_other_types(keys)
    head_dim = _head_dim(keys, sizes, "gptneox.attention.head_count")
    _refuse_other_attention(keys, sizes["n_heads"], head_dim)
    rotary_key = "gptneox.rope.dimension_count"
    rotary_dims = keys.whole(rotary_key, 0, 2**20) if rotary_key in metadata else head_dim
    return GPTNeoXConfig(
        **sizes,
        n_vocab=_vocabulary_size(keys),
        rotary_dims=_rotary_dims(keys, rotary_dims, head_dim, rotary_key),
        rope_base=keys.number("gptneox.rope.freq_base", DEFAULT_ROPE_BASE, *ROPE_BASES),
        layer_norm_eps=keys.number("gptneox.attention.layer_norm_epsilon", None, *_EPSILONS),
        parallel_residual=keys.switch("gptneox.use_parallel_residual", None),
        hidden_act=None,
        tied_embeddings=False,
    )


def metadata_of(config: GPTNeoXConfig) -> dict[str, bool | np.generic]:
    """The `gptneox.*` keys in the order and with the types of llama.cpp's converter.

    `gptneox.rope.freq_base` is ours: llama.cpp reads it, but its converter never writes it, so a model with
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


def _refuse_other_models(keys: Keys) -> list[str]:
    """What is said of the class that the config names; transformers' AutoModelForCausalLM does not look at it."""
    kind = keys.get("model_type", "")
    if kind != "gpt_neox":
        keys.fail(f"expected 'gpt_neox' (Pythia, GPT-NeoX), got {kind!r}", "model_type")
    names = keys.get("architectures", [])
    first = (names[0] if names else _CLASS) if isinstance(names, list) else None
    if not isinstance(first, str) or _OTHER_HEADS.fullmatch(first):
        keys.fail(f"expected [{_CLASS!r}], got {names!r}: no model that writes text", "architectures")
    is_other = first != _CLASS
    return [f"architectures names {one_line(first, 60)}: the model is read as {_CLASS}"] if is_other else []


def _refuse_other_types(keys: Keys) -> None:
    """Numbers of another GGUF type; what is no number is named where it is read."""
    for key, kind in _GGUF_TYPES.items():
        value = keys.get(key)
        if isinstance(value, np.generic) and not isinstance(value, kind):
            keys.fail(f"expected a {kind.__name__}, got a {type(value).__name__}", key)


def _refuse_other_attention(keys: Keys, n_heads: int, head_dim: int) -> None:
    """Keys that llama.cpp would follow and that are never otherwise in this architecture."""
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
    value = keys.get("hidden_act", "gelu")
    if not isinstance(value, str) or value not in GELU_OF_ACT:
        hint = nearest(str(value)[:80], GELU_OF_ACT)
        keys.fail(f"a GGUF of this architecture always computes a GELU, got {value!r}{hint}", "hidden_act")
    return value
