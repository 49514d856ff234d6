"""The smallest model that is accepted, as a GGUF and as the files of a Hugging Face folder: what damage starts from.

One layer of width 2 makes a file of 2 KB that is mostly header; width 32 can be quantized.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from checkpoint.craft_pickle import ORDERED_DICT, dict_of, storage, tensor, text, whole
from checkpoint.craft_safetensors import file_of
from checkpoint.craft_zip import Item, build_zip
from pythia_gguf.arch import config_from_gguf
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.gguf.container import Metadata, padded
from pythia_gguf.gguf.writer import header_bytes, layout
from pythia_gguf.tokenizer.vocabulary import BYTE_SYMBOLS

N_TOKENS, N_ROWS = 8, 260
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BINS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")


def metadata(width: int = 2) -> Metadata:
    """Keys of the model as a GGUF: eight tokens, one merge."""
    return {
        "general.architecture": "gptneox",
        "general.name": "Tiny",
        "gptneox.context_length": np.uint32(16),
        "gptneox.embedding_length": np.uint32(width),
        "gptneox.block_count": np.uint32(1),
        "gptneox.feed_forward_length": np.uint32(width),
        "gptneox.rope.dimension_count": np.uint32(2),
        "gptneox.attention.head_count": np.uint32(1),
        "gptneox.use_parallel_residual": True,
        "gptneox.attention.layer_norm_epsilon": np.float32(1e-5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "olmo",
        "tokenizer.ggml.tokens": [*"abcdefg", "ab"],
        "tokenizer.ggml.token_type": np.ones(N_TOKENS, np.int32),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": np.uint32(0),
        "tokenizer.ggml.add_bos_token": False,
    }


def shapes_of(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """GGUF names and shapes of a model with such keys."""
    return GPT_NEOX.tensor_shapes(config_from_gguf(metadata, path="tiny"))


def gguf_bytes(
    *,
    width: int = 2,
    keys: Mapping[str, object] | None = None,
    shapes: Mapping[str, object] | None = None,
) -> bytes:
    """The model as an F16 GGUF of small weights; changed keys and shapes, a value of `...` leaves one out."""
    base = metadata(width)
    changed = {k: v for k, v in (base | (keys or {})).items() if v is not ...}
    kept = {k: v for k, v in (shapes_of(base) | (shapes or {})).items() if v is not ...}
    infos = layout((name, "F16" if len(shape) == 2 else "F32", shape) for name, shape in kept.items())
    data = b"".join(_values(i.n_weights, i.format).ljust(padded(i.n_bytes, 32), b"\0") for i in infos)
    return header_bytes(changed, infos) + data


def _values(n: int, stored: str) -> bytes:
    return (np.arange(n) % 7 / 8 - 0.375).astype("f2" if stored == "F16" else "f4").tobytes()


def folder_files(width: int = 2) -> dict[str, bytes]:
    """The model as the files of a Hugging Face folder, by name."""
    texts: dict[str, object] = {
        "config.json": config(width),
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": {
            "add_prefix_space": False,
            "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}},
            "bos_token": "<|endoftext|>",
            "chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "tool-use", "template": "{{ y }}"}],
            "tokenizer_class": "GPTNeoXTokenizer",
        },
        "special_tokens_map.json": {"eos_token": {"content": "<|endoftext|>"}},
        "generation_config.json": {"temperature": 0.7, "top_k": 40, "sequence": "top_k"},
    }
    card = "---\nlicense: apache-2.0\ntags: [a, b]\nbase_model:\n- x/y-70m\n- {name: Z}\n---\n# Tiny\n"
    files = {name: json.dumps(value).encode() for name, value in texts.items()}
    return files | {"README.md": card.encode(), "model.safetensors": safetensors(hf_shapes(width).items())}


def sharded(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files with the weights in two shards of safetensors and an index."""
    return _split(files, SHARDS, "model.safetensors.index.json", safetensors)


def sharded_bins(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files with the weights in two files of torch.save and an index."""
    return _split(files, BINS, "pytorch_model.bin.index.json", torch_zip)


def _split(files, names, index, make) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    shapes = list(hf_shapes(json.loads(files["config.json"])["hidden_size"]).items())
    parts = dict(zip(names, (shapes[:9], shapes[9:]), strict=True))
    where = {tensor_name: name for name, part in parts.items() for tensor_name, _ in part}
    kept = {name: data for name, data in files.items() if name != "model.safetensors"}
    made = {name: make(part) for name, part in parts.items()}
    return kept | made | {index: json.dumps({"metadata": {"total_size": 1}, "weight_map": where}).encode()}


def config(width: int = 2) -> dict[str, object]:
    """config.json; a few rows of the embedding have no token."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 16,
        "model_type": "gpt_neox",
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "rotary_emb_base": 10000,
        "rotary_pct": 2 / width,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": N_ROWS,
    }


def tokenizer() -> dict[str, object]:
    """tokenizer.json: one special token, all bytes, one merge."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = {"special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
    vocab = {token: i for i, token in enumerate(["<|endoftext|>", *BYTE_SYMBOLS, "ab"])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", **flags}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "vocab": vocab, "merges": [["a", "b"]]},
    }


def hf_shapes(width: int = 2) -> dict[str, tuple[int, ...]]:
    """Hugging Face names and shapes."""
    rows = {"token_embd.weight": (N_ROWS, width), "output.weight": (N_ROWS, width)}
    return {
        GPT_NEOX.hf_name(name, path="tiny"): rows.get(name, shape) for name, shape in shapes_of(metadata(width)).items()
    }


def safetensors(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> bytes:
    """A file of float16 tensors."""
    header, data = {}, b""
    for name, shape in shapes:
        raw = _values(int(np.prod(shape)), "F16")
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return file_of(header, data)


def torch_zip(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> bytes:
    """The same as torch.save writes it."""
    pairs, records = [], []
    for i, (name, shape) in enumerate(shapes):
        n = int(np.prod(shape))
        stored = storage(str(i), n, "HalfStorage")
        pairs.append((text(name), tensor(stored, shape=shape, stride=(shape[1], 1) if len(shape) == 2 else (1,))))
        records.append(Item(name=f"m/data/{i}", data=_values(n, "F16")))
    pickle = whole(dict_of(*pairs, empty=ORDERED_DICT))
    start = [Item(name="m/data.pkl", data=pickle), Item(name="m/byteorder", data=b"little")]
    return build_zip([*start, *records, Item(name="m/version", data=b"3\n")])


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder that holds these files."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
