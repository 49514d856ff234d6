"""The points of a step in transformers' GPT-NeoX, by the names that they have here: seen, and changed in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import GPTNeoXForCausalLM
from transformers.models.gpt_neox import modeling_gpt_neox

See = Callable[[str, torch.Tensor], None]


def _rows(x: torch.Tensor) -> torch.Tensor:
    """[1, n_heads, n_tokens, any] with tokens first."""
    return x[0].transpose(0, 1)


def _norm(layer: nn.LayerNorm, name: str, see: See) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch.nn.LayerNorm's formula in two steps."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        scale = (centered.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt()
        see(f"{name}.scale", scale[0])
        y = centered / scale * layer.weight + layer.bias
        see(f"{name}.normalized", y[0])
        return y

    return forward


class _Seams:
    """Places of a model where something is seen, until `undo`."""

    def __init__(self, see: See) -> None:
        self.see = see
        self.layer = ""  # that runs now, as "blocks.3."
        self._undo: list[Callable[[], Any]] = []

    def before(self, module: nn.Module, name: str, shape: tuple[int, ...] = (-1,)) -> None:
        """See what goes in, as [n_tokens, *shape]."""

        def pre(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0][0]
            self.see(name, x.view(len(x), *shape))

        self._undo.append(module.register_forward_pre_hook(pre).remove)

    def after(self, module: nn.Module, name: str) -> None:
        """See what comes out."""
        self.after_do(module, lambda out: self.see(name, out))

    def after_do(self, module: nn.Module, do: Callable[[torch.Tensor], None]) -> None:
        self._undo.append(module.register_forward_hook(lambda m, args, out: do(out[0])).remove)

    def exchange(self, owner: object, attribute: str, new: object) -> None:
        old = getattr(owner, attribute)
        setattr(owner, attribute, new)
        self._undo.append(lambda: setattr(owner, attribute, old))

    def undo(self) -> None:
        for each in reversed(self._undo):
            each()


def _attention(seams: _Seams) -> None:
    """What functions of the module compute: turned queries and keys, scores, pattern."""
    rotate, softmax = modeling_gpt_neox.apply_rotary_pos_emb, nn.functional.softmax

    def rotate_and_see(q: torch.Tensor, k: torch.Tensor, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = rotate(q, k, *args)
        seams.see(seams.layer + "attn.rot_q", _rows(q))
        seams.see(seams.layer + "attn.rot_k", _rows(k))
        return q, k

    def softmax_and_see(scores: torch.Tensor, **how: Any) -> torch.Tensor:
        """In the type of the model: transformers rounds to float32 here."""
        seams.see(seams.layer + "attn.scores", _rows(scores))
        pattern = softmax(scores, dim=how["dim"])
        seams.see(seams.layer + "attn.pattern", _rows(pattern))
        return pattern

    seams.exchange(modeling_gpt_neox, "apply_rotary_pos_emb", rotate_and_see)
    seams.exchange(nn.functional, "softmax", softmax_and_see)


def _layer(seams: _Seams, layer: Any, name: str, n_heads: int, is_parallel: bool) -> None:
    def enter(module: nn.Module, args: object) -> None:
        seams.layer = name

    def qkv(out: torch.Tensor) -> None:
        for letter, x in zip("qkv", out.view(len(out), n_heads, -1).chunk(3, dim=-1), strict=True):
            seams.see(f"{name}attn.{letter}", x)

    seams._undo.append(layer.register_forward_pre_hook(enter).remove)
    seams.before(layer, name + "resid_pre")
    seams.exchange(layer.input_layernorm, "forward", _norm(layer.input_layernorm, name + "ln1", seams.see))
    second = layer.post_attention_layernorm
    seams.exchange(second, "forward", _norm(second, name + "ln2", seams.see))
    seams.after_do(layer.attention.query_key_value, qkv)
    seams.before(layer.attention.dense, name + "attn.z", (n_heads, -1))
    seams.after(layer.attention.dense, name + "attn_out")
    if not is_parallel:
        seams.before(second, name + "resid_mid")
    seams.after(layer.mlp.dense_h_to_4h, name + "mlp.pre")
    seams.before(layer.mlp.dense_4h_to_h, name + "mlp.post")
    seams.after(layer.mlp.dense_4h_to_h, name + "mlp_out")
    seams.after(layer, name + "resid_post")


@contextmanager
def points_seen_by(see: See, hf: GPTNeoXForCausalLM) -> Iterator[None]:
    """While this lasts, `see` gets each point's name and its tensor, tokens first, which it may change in place."""
    seams, body = _Seams(see), hf.gpt_neox
    _attention(seams)
    seams.after(body.embed_in, "embed")
    for i, layer in enumerate(body.layers):
        _layer(seams, layer, f"blocks.{i}.", hf.config.num_attention_heads, hf.config.use_parallel_residual)
    seams.exchange(body.final_layer_norm, "forward", _norm(body.final_layer_norm, "ln_final", see))
    seams.after(hf.get_output_embeddings(), "logits")
    try:
        yield
    finally:
        seams.undo()
