"""The JSON files of a Hugging Face folder, for transformers 4 and 5: those beside the weights and tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pythia_gguf.arch import ARCHITECTURES, ModelConfig
from pythia_gguf.json_file import json_text


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTokens:
    """The special tokens that files name.

    ids, texts  by "bos", "eos", "unk" and "pad"; those that there are
    ends        ids at which a text ends
    """

    ids: Mapping[str, int]
    texts: Mapping[str, str]
    ends: tuple[int, ...]


def config_keys(config: ModelConfig, tokens: NamedTokens, dtype: str) -> dict[str, Any]:
    """Keys of config.json, sorted.

    config  names its activation; `tie_word_embeddings` is false because both matrices are written
    """
    architecture = ARCHITECTURES[config.architecture]
    keys = architecture.hf_keys(config) | {
        "architectures": [architecture.hf_class],
        "bos_token_id": tokens.ids.get("bos"),
        "dtype": dtype,
        "eos_token_id": tokens.ids.get("eos"),
        "hidden_act": config.hidden_act,
        "model_type": architecture.hf_type,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    return dict(sorted(keys.items()))


def config_texts(config: Mapping[str, Any], tokens: NamedTokens, template: str | None = None) -> dict[str, str]:
    """Every file by its name; `config` is what `config_keys` gives, `template` that of a chat."""
    texts = {f"{kind}_token": text for kind, text in tokens.texts.items()}
    tokenizer_config = {
        **texts,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if template is not None:
        tokenizer_config["chat_template"] = template
    generation = {
        "bos_token_id": tokens.ids.get("bos"),
        "eos_token_id": tokens.ends[0] if len(tokens.ends) == 1 else list(tokens.ends),
        "pad_token_id": tokens.ids.get("pad"),
    }
    files = {
        "config.json": config,
        "generation_config.json": {key: value for key, value in generation.items() if value not in (None, [])},
        "special_tokens_map.json": texts,
        "tokenizer_config.json": tokenizer_config,
    }
    return {name: json_text(value, indent=2, ascii_only=False) + "\n" for name, value in files.items()}
