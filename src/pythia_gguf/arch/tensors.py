"""The tensors of a GPT-NeoX model: names on both sides, roles, shapes, and the row order of the fused QKV.

Knows no bytes and no formats. All as in llama.cpp 0c1e57098: names in gguf-py/gguf/tensor_mapping.py, row order
in conversion/gptneox.py, tensor order (layer number, then name) in src/llama-quant.cpp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NoReturn

from pythia_gguf.arch.gpt_neox import MAX_LAYERS, GPTNeoXConfig
from pythia_gguf.errors import ModelFileError, nearest

# Role -> Hugging Face module. The role is also the stem of the GGUF name.
_MODEL_MODULES = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
}
_LAYER_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
# transformers 5 calls embed_out lm_head while it is in memory, and so does what torch.save makes of it.
_MODEL_ROLES = {module: role for role, module in _MODEL_MODULES.items()} | {"lm_head": "output"}
_LAYER_ROLES = {module: role for role, module in _LAYER_MODULES.items()}
_WITHOUT_BIAS = ("token_embd", "output")
# Constants of the computation that old checkpoints carry along: causal masks and rotation frequencies.
_BUFFERS = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")

_HF_NAME = re.compile(r"(?:gpt_neox\.layers\.(0|[1-9][0-9]{0,2})\.)?(.+)\.(weight|bias)")
_GGUF_NAME = re.compile(r"(?:blk\.(0|[1-9][0-9]{0,2})\.)?([a-z_]+)\.(weight|bias)")


def gguf_name(hf_name: str, *, path: str | os.PathLike[str]) -> str | None:
    """GGUF name of a Hugging Face tensor; None for a buffer that is left out.

    path    the file that has it, for the message
    Raises  ModelFileError for a name that no GPT-NeoX model has.
    """
    if hf_name.endswith(_BUFFERS):
        return None
    name = _to_gguf(hf_name)
    if _parse(name) is None:
        _refuse(hf_name, [_to_hf(known) for known in _names(1)], path)
    return name


def hf_name(gguf_name: str, *, path: str | os.PathLike[str]) -> str:
    """Hugging Face name of a GGUF tensor; raises ModelFileError for a name that no GPT-NeoX model has."""
    if _parse(gguf_name) is None:
        _refuse(gguf_name, _names(1), path)
    return _to_hf(gguf_name)


def role_of(gguf_name: str) -> str:
    """What a tensor is for; a bias has the role of its weight.

    Returns token_embd, output, output_norm, attn_norm, attn_qkv, attn_output, ffn_norm, ffn_up or ffn_down.
    Raises  ValueError for a name that no GPT-NeoX model has.
    """
    return _parsed(gguf_name)[1]


def layer_of(gguf_name: str) -> int | None:
    """Layer of a tensor, None outside the layers; raises ValueError for a name that no GPT-NeoX model has."""
    return _parsed(gguf_name)[0]


def tensor_shapes(config: GPTNeoXConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the GGUF and its shape, (rows, columns) or (length,), in llama-quantize's order."""
    hidden = config.hidden
    weights: dict[str, tuple[int, ...]] = {
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
    shapes = {}
    for name in _names(config.n_layers):
        shape = weights[role_of(name)]
        shapes[name] = shape[:1] if name.endswith(".bias") else shape
    return shapes


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: str | os.PathLike[str]
) -> None:
    """Raises ModelFileError for the first tensor of a model that is unknown, missing or of another shape.

    found     name -> shape, in the order of the file
    expected  what `tensor_shapes` says
    """
    for name in found:
        if name not in expected:
            raise ModelFileError(
                "no GPT-NeoX model of these sizes has such a tensor", path=path, field=f"tensor {name}"
            )
    for name, shape in expected.items():
        if name not in found:
            raise ModelFileError("tensor is missing", path=path, field=f"tensor {name}")
        if found[name] != shape:
            raise ModelFileError(
                f"expected shape {list(shape)}, got {list(found[name])}", path=path, field=f"tensor {name}"
            )


def qkv_runs(config: GPTNeoXConfig) -> list[tuple[int, int, int]]:
    """The row order of attn_qkv, weight and bias alike: runs of (first GGUF row, first source row, n_rows).

    Hugging Face stores q, k and v of head 0, then of head 1, ...; a GGUF all q, then all k, then all v.
    Runs are in the order of GGUF rows and cover each row once.
    """
    rows = config.head_dim
    return [
        (part * config.hidden + head * rows, (3 * head + part) * rows, rows)
        for part in range(3)
        for head in range(config.n_heads)
    ]


def _names(n_layers: int) -> list[str]:
    """All GGUF names: outside the layers first, then layer by layer, in each group sorted as strings."""
    groups = [("", _MODEL_MODULES)] + [(f"blk.{i}.", _LAYER_MODULES) for i in range(n_layers)]
    names = []
    for prefix, roles in groups:
        both = [f"{prefix}{role}.{kind}" for role in roles for kind in ("weight", "bias")]
        names += sorted(name for name in both if _parse(name) is not None)
    return names


def _parse(gguf_name: str) -> tuple[int | None, str] | None:
    """Layer and role of a name, or None when no GPT-NeoX model has it."""
    match = _GGUF_NAME.fullmatch(gguf_name)
    if match is None:
        return None
    layer, role, kind = match.groups()
    if layer is None:
        known = role in _MODEL_MODULES and not (kind == "bias" and role in _WITHOUT_BIAS)
        return (None, role) if known else None
    return (int(layer), role) if role in _LAYER_MODULES and int(layer) < MAX_LAYERS else None


def _parsed(gguf_name: str) -> tuple[int | None, str]:
    found = _parse(gguf_name)
    if found is None:
        raise ValueError(f"no tensor of a GPT-NeoX model: {gguf_name!r}")
    return found


def _to_gguf(hf_name: str) -> str:
    """The GGUF name as the pattern gives it; a role of `None` in it when the module is unknown."""
    match = _HF_NAME.fullmatch(hf_name)
    if match is None:
        return ""
    layer, module, kind = match.groups()
    if layer is None:
        return f"{_MODEL_ROLES.get(module)}.{kind}"
    return f"blk.{layer}.{_LAYER_ROLES.get(module)}.{kind}"


def _to_hf(gguf_name: str) -> str:
    layer, role = _parsed(gguf_name)
    kind = gguf_name.rpartition(".")[2]
    if layer is None:
        return f"{_MODEL_MODULES[role]}.{kind}"
    return f"gpt_neox.layers.{layer}.{_LAYER_MODULES[role]}.{kind}"


def _refuse(name: str, known: list[str], path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(f"no tensor of a GPT-NeoX model{nearest(name, known)}", path=path, field=f"tensor {name}")
