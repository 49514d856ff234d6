"""A small GPT-NeoX model as a GGUF file written by us, and llama.cpp's quantizer to make others from it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from pythia_gguf.gguf.container import Metadata, padded
from pythia_gguf.gguf.writer import header_bytes, layout

# The keys of craft.keys() in our terms.
TINY: Metadata = {
    "general.architecture": "gptneox",
    "general.name": "tiny",
    "gptneox.block_count": np.uint32(1),
    "gptneox.flag": True,
    "tiny.bools": np.array([True, False, True]),
    "tiny.words": ["one", "two"],
    "tiny.numbers": np.array([7, -7], np.int32),
}

WIDTH, N_LAYERS, N_TOKENS, N_FFN = 256, 2, 300, 512


def metadata() -> Metadata:
    """What llama.cpp asks of a gptneox file, with a byte-level vocabulary of 256 bytes and 44 merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    merges = [f"{a} {b}" for a in "abcdefg" for b in "tuvwxyz"][: N_TOKENS - 256]
    return {
        "general.architecture": "gptneox",
        "general.name": "Toy \u00e9\u4e16",
        "gptneox.context_length": np.uint32(64),
        "gptneox.embedding_length": np.uint32(WIDTH),
        "gptneox.block_count": np.uint32(N_LAYERS),
        "gptneox.feed_forward_length": np.uint32(N_FFN),
        "gptneox.rope.dimension_count": np.uint32(16),
        "gptneox.attention.head_count": np.uint32(4),
        "gptneox.use_parallel_residual": True,
        "gptneox.attention.layer_norm_epsilon": np.float32(1e-5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "olmo",
        "tokenizer.ggml.tokens": alphabet + [m.replace(" ", "") for m in merges],
        "tokenizer.ggml.token_type": np.ones(N_TOKENS, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": np.uint32(0),
        "tokenizer.ggml.eos_token_id": np.uint32(0),
        "tokenizer.ggml.add_bos_token": False,
    }


def weights() -> dict[str, np.ndarray]:
    """Every tensor of the model: float32 vectors, float16 matrices."""
    rng = np.random.default_rng(7)
    shapes = {"token_embd.weight": (N_TOKENS, WIDTH), "output.weight": (N_TOKENS, WIDTH)}
    vectors = {"output_norm": WIDTH}
    for i in range(N_LAYERS):
        shapes |= {
            f"blk.{i}.attn_qkv.weight": (3 * WIDTH, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{i}.ffn_up.weight": (N_FFN, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, N_FFN),
        }
        vectors |= {f"blk.{i}.attn_norm": WIDTH, f"blk.{i}.ffn_norm": WIDTH}
    made = {name: (0.02 * rng.standard_normal(shape)).astype(np.float16) for name, shape in shapes.items()}
    for name, width in vectors.items():
        made[f"{name}.weight"] = np.ones(width, np.float32)
    for name, width in vectors.items():
        made[f"{name}.bias"] = np.zeros(width, np.float32)
    for name, shape in shapes.items():
        if name.startswith("blk"):
            made[name.replace("weight", "bias")] = rng.standard_normal(shape[0]).astype(np.float32) / 50
    return made


def write(path: Path, metadata: Metadata, tensors: dict[str, np.ndarray]) -> Path:
    """A GGUF file of float tensors by way of `layout` and `header_bytes`."""
    formats = {np.dtype("f4"): "F32", np.dtype("f2"): "F16"}
    infos = layout((name, formats[w.dtype], w.shape) for name, w in tensors.items())
    with open(path, "wb") as out:
        out.write(header_bytes(metadata, infos))
        for info in infos:
            out.write(tensors[info.name].tobytes().ljust(padded(info.n_bytes, 32), b"\0"))
    return path


@llama_cpp.llama_log_callback
def _say_nothing(level: int, text: bytes, user_data: object) -> None:
    pass


def silence() -> None:
    """llama.cpp without its log."""
    llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))


def quantize(source: Path, out: Path, file_type: int) -> Path:
    """llama.cpp's own quantizer, one thread; `file_type` is a llama_ftype."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = file_type, 1, True
    silence()
    answer = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    assert answer == 0
    return out
