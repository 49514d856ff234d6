"""GPT-NeoX in torch, for training: modules named as in a Hugging Face folder, and a loss that never holds all logits.

Shapes: B rows, T tokens, D width, H heads, V outputs. Source: gpt-neox v1.0 (71df4d5), megatron/model/transformer.py
and gpt2_model.py, with the settings of EleutherAI/pythia a19eecb.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pythia_gguf.train.loss import mean_loss
from pythia_gguf.train.recipe import Recipe


class Attention(nn.Module):
    """Causal attention over a whole row; documents and their ends are not looked at, as in Pythia's training."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.n_heads, self.rotary_dims = recipe.heads, recipe.rotary_dims
        self.query_key_value = nn.Linear(recipe.hidden, 3 * recipe.hidden)
        self.dense = nn.Linear(recipe.hidden, recipe.hidden)

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """Attention's output [B, T, D]; the rows of query_key_value are q, k and v of head 0, then of head 1, ..."""
        B, T, D = x_BTD.shape
        q, k, v = self.query_key_value(x_BTD).view(B, T, self.n_heads, -1).transpose(1, 2).chunk(3, -1)
        q, k = (rotated(each, cos_TR, sin_TR, self.rotary_dims) for each in (q, k))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.dense(seen.transpose(1, 2).reshape(B, T, D))
        return out


class FeedForward(nn.Module):
    """Two matrices with a GELU between them."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.approximate = "tanh" if recipe.gelu == "tanh" else "none"
        self.dense_h_to_4h = nn.Linear(recipe.hidden, recipe.feed_forward)
        self.dense_4h_to_h = nn.Linear(recipe.feed_forward, recipe.hidden)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Its output [B, T, D]."""
        out: Tensor = self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x_BTD), approximate=self.approximate))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm of its own, side by side (parallel residual) or in turn."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.is_parallel = recipe.parallel_residual
        self.input_layernorm = nn.LayerNorm(recipe.hidden, recipe.norm_epsilon)
        self.post_attention_layernorm = nn.LayerNorm(recipe.hidden, recipe.norm_epsilon)
        self.attention = Attention(recipe)
        self.mlp = FeedForward(recipe)

    def forward(self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
        """The stream after the layer, [B, T, D]."""
        attended = self.attention(self.input_layernorm(x_BTD), cos_TR, sin_TR)
        if self.is_parallel:
            return x_BTD + attended + self.mlp(self.post_attention_layernorm(x_BTD))
        x_BTD = x_BTD + attended
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Body(nn.Module):
    """Everything but the output matrix."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.embed_in = nn.Embedding(recipe.vocabulary, recipe.hidden)
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.final_layer_norm = nn.LayerNorm(recipe.hidden, recipe.norm_epsilon)


class Transformer(nn.Module):
    """A GPT-NeoX language model.

    recomputes  whether the activations of a layer are computed again for its gradient, which saves their memory
    """

    def __init__(self, recipe: Recipe, *, recomputes: bool = False) -> None:
        """Weights are undefined until `init_weights` or `load_state_dict`."""
        super().__init__()
        self.recipe, self.recomputes = recipe, recomputes
        self.cos_TR: Tensor
        self.sin_TR: Tensor
        self.gpt_neox = Body(recipe)
        self.embed_out = nn.Linear(recipe.hidden, recipe.vocabulary, bias=False)
        cos_TR, sin_TR = rotary_tables(recipe)
        self.register_buffer("cos_TR", cos_TR, persistent=False)
        self.register_buffer("sin_TR", sin_TR, persistent=False)

    def hidden(self, ids_BT: Tensor) -> Tensor:
        """The stream after the last norm, [B, T, D]."""
        T = ids_BT.shape[1]
        cos_TR, sin_TR = self.cos_TR[:T], self.sin_TR[:T]
        x_BTD = self.gpt_neox.embed_in(ids_BT)
        for layer in self.gpt_neox.layers:
            if self.recomputes and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, cos_TR, sin_TR, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, cos_TR, sin_TR)
        out: Tensor = self.gpt_neox.final_layer_norm(x_BTD)
        return out

    def logits(self, ids_BT: Tensor) -> Tensor:
        """Logits of the next token, [B, T, V]."""
        out: Tensor = self.embed_out(self.hidden(ids_BT))
        return out

    def forward(self, rows_BT: Tensor, scale: float = 1.0) -> Tensor:
        """Mean cross entropy, in nats, of each row's tokens after those before them, times `scale`.

        rows_BT  ids with one token more than there are predictions
        """
        hidden_BTD = self.hidden(rows_BT[:, :-1])
        return mean_loss(hidden_BTD.flatten(0, 1), self.embed_out.weight, rows_BT[:, 1:].flatten(), scale)


def rotary_tables(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, f32 [T, R]; the angles of dimensions i and i + R / 2 are the same.

    With the float16 table, frequencies, angles and their functions are float16, as in Pythia's training: DeepSpeed cast
    the frequencies with the weights (gpt-neox issue 1003).
    """
    kind = getattr(torch, recipe.rotary_table)
    dims = torch.arange(0, recipe.rotary_dims, 2).float() / recipe.rotary_dims
    frequencies = (1.0 / recipe.rotary_base**dims).to(kind)
    angles = torch.outer(torch.arange(recipe.context).to(kind), frequencies)
    angles = torch.cat((angles, angles), -1)
    return angles.cos().float(), angles.sin().float()


def rotated(x_BHTK: Tensor, cos_TR: Tensor, sin_TR: Tensor, n_dims: int) -> Tensor:
    """Queries or keys with their first dimensions rotated by their positions."""
    turning, rest = x_BHTK[..., :n_dims], x_BHTK[..., n_dims:]
    first, second = turning.chunk(2, -1)
    turned = turning * cos_TR + torch.cat((-second, first), -1) * sin_TR
    return torch.cat((turned.to(x_BHTK.dtype), rest), -1)


def init_weights(model: Transformer, generator: torch.Generator) -> None:
    """Draw all weights, in the order of the model's modules.

    gpt-neox drew them in float16 on a GPU, so the weights of Pythia's step 0 cannot be drawn again; their deviations
    are these (megatron/model/init_functions.py).
    """
    recipe = model.recipe
    if recipe.init == "small":
        into, out = math.sqrt(2 / (5 * recipe.hidden)), 2 / (recipe.layers * math.sqrt(recipe.hidden))
    else:
        into, out = 0.02, 0.02 / math.sqrt(2 * recipe.layers)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.fill_(1)
            elif name.endswith(".bias"):
                weight.zero_()
            else:
                is_out = name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight"))
                weight.normal_(0, out if is_out else into, generator=generator)
