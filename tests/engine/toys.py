"""A small GPT-NeoX as transformers makes it, and as a GGUF; and logits of transformers, with parts exchanged for
wrong ones.

Weights are drawn wide (std 0.15), so that a wrong formula shows in the logits and not only in their last digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from press.toy_gguf import model_metadata
from pythia_gguf.arch import config_from_gguf
from pythia_gguf.gguf.container import Metadata, padded
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.writer import file_bytes, header_bytes, layout

HIDDEN, LAYERS, HEADS, FFN, VOCAB, CONTEXT = 96, 3, 4, 320, 300, 256
IDS = [i * i * 7 % VOCAB for i in range(70)]


def toy_model(
    *, parallel: bool = True, act: str = "gelu", base: float = 10000.0, share: float = 0.25, hidden: int = HIDDEN
) -> GPTNeoXForCausalLM:
    """Seeded, float32, in eval mode."""
    config = GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        max_position_embeddings=CONTEXT,
        use_parallel_residual=parallel,
        hidden_act=act,
        rope_parameters={"rope_type": "default", "rope_theta": base, "partial_rotary_factor": share},
        attn_implementation="eager",
    )
    torch.manual_seed(3)
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_(mean + 0.15 * torch.randn_like(p))
    return model


def hf_logits(model: GPTNeoXForCausalLM, ids: list[int]) -> np.ndarray:
    """f64 [n_tokens, n_vocab]; a float32 model runs in float64, as its rounding differs from CPU to CPU."""
    dtype = model.dtype
    with torch.no_grad():
        if dtype == torch.float32:
            model.to(torch.float64)
        logits = model(torch.tensor([ids])).logits[0].double().numpy()
        model.to(dtype)
    return logits


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the standard deviation of the second."""
    return float(np.abs(a - b).max() / b.std())


def gguf_names(model: GPTNeoXForCausalLM) -> dict[str, torch.nn.Parameter]:
    """The model's parameters by their names in a GGUF."""
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "attention.dense": "attn_output"}
    names |= {"attention.query_key_value": "attn_qkv", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}
    names |= {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm"}
    names |= {"embed_out": "output", "lm_head": "output"}
    found = {}
    for name, p in model.named_parameters():
        layer = re.fullmatch(r"gpt_neox\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        stem, part = name.rsplit(".", 1)
        found[f"blk.{layer[1]}.{names[layer[2]]}.{layer[3]}" if layer else f"{names[stem]}.{part}"] = p
    return found


def gguf_tensors(model: GPTNeoXForCausalLM) -> dict[str, np.ndarray]:
    """The model's weights as in a GGUF: rows of the fused QKV gathered as q, k, v of all heads."""
    tensors = {}
    heads, hidden = model.config.num_attention_heads, model.config.hidden_size
    for name, p in gguf_names(model).items():
        w = p.detach().float().numpy()
        if "attn_qkv" in name:
            rest = w.shape[1:]
            w = w.reshape(heads, 3, hidden // heads, *rest).swapaxes(0, 1).reshape(3 * hidden, *rest)
        tensors[name] = w
    return tensors


def write_gguf(
    path: Path, model: GPTNeoXForCausalLM, matrices: str = "F32", change: Callable[[Metadata], Metadata] = lambda m: m
) -> Path:
    """The model as an F32 or F16 GGUF; `change` gets the keys."""
    c = model.config
    rope = c.rope_parameters
    metadata = model_metadata(hidden=c.hidden_size, n_layers=c.num_hidden_layers, n_heads=c.num_attention_heads,
                              n_ffn=c.intermediate_size)  # fmt: skip
    head_dim = c.hidden_size // c.num_attention_heads
    metadata |= {
        "gptneox.context_length": np.uint32(c.max_position_embeddings),
        "gptneox.rope.dimension_count": np.uint32(int(rope["partial_rotary_factor"] * head_dim)),
        "gptneox.rope.freq_base": np.float32(rope["rope_theta"]),
        "gptneox.use_parallel_residual": bool(c.use_parallel_residual),
        "gptneox.attention.layer_norm_epsilon": np.float32(c.layer_norm_eps),
    }
    metadata = change(metadata)
    tensors = gguf_tensors(model)
    formats = {name: matrices if t.ndim == 2 else "F32" for name, t in tensors.items()}
    infos = layout((name, formats[name], t.shape) for name, t in tensors.items())
    with open(path, "wb") as f:
        f.write(header_bytes(metadata, infos))
        for name, t in tensors.items():
            data = t.astype(np.float16 if formats[name] == "F16" else np.float32).tobytes()
            f.write(data + bytes(padded(len(data), 32) - len(data)))
    assert path.stat().st_size == file_bytes(metadata, infos)
    return path


def hf_from_gguf(path: Path, act: str) -> GPTNeoXForCausalLM:
    """A model of transformers with a file's weights, decoded to float32."""
    gguf = open_gguf(path)
    config = config_from_gguf(gguf.metadata, path)
    hf = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=config.n_vocab,
            hidden_size=config.hidden,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            intermediate_size=config.n_ffn,
            max_position_embeddings=config.n_context,
            layer_norm_eps=config.layer_norm_eps,
            use_parallel_residual=config.parallel_residual,
            hidden_act=act,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": config.rope_base,
                "partial_rotary_factor": config.rotary_dims / config.head_dim,
            },
            attn_implementation="eager",
        )
    ).eval()
    mine = gguf_names(hf)
    with torch.no_grad():
        for name in gguf.tensors:
            w = decode_tensor(gguf, name)
            if "attn_qkv" in name:
                rest = w.shape[1:]
                w = (
                    w.reshape(3, config.n_heads, config.head_dim, *rest)
                    .swapaxes(0, 1)
                    .reshape(3 * config.hidden, *rest)
                )
            mine[name].copy_(torch.from_numpy(np.ascontiguousarray(w)))
    return hf
