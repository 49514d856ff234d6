"""One update of the weights: gradients of a batch, clipping, loss scale, and AdamW as Pythia's training had it.

Source: gpt-neox v1.0 (71df4d5) megatron/model/utils.py for which weights decay, and DeeperSpeed eb7f5cf for the rest:
runtime/zero/stage1.py (clipping), runtime/fp16/loss_scaler.py (loss scale).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pythia_gguf.train.model import Transformer
from pythia_gguf.train.recipe import Recipe

_GROWTH, _PATIENCE = 1000, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LossScale:
    """What the loss is multiplied with, so that float16 gradients do not become 0.

    scale       now
    patience    overflows that are still borne before it is halved
    n_clean     updates since the last overflow, or since it was doubled
    """

    scale: float = 2.0**12
    patience: int = _PATIENCE
    n_clean: int = 0

    def after(self, *, overflowed: bool) -> LossScale:
        """The next one; at 1 it cannot fall, and the caller gives up."""
        if overflowed and self.patience > 1:
            return replace(self, n_clean=0, patience=self.patience - 1)
        if overflowed:
            return replace(self, n_clean=0, scale=max(self.scale / 2, 1.0))
        if self.n_clean + 1 == _GROWTH:
            return LossScale(scale=self.scale * 2)
        return replace(self, n_clean=self.n_clean + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """What came of an update.

    loss           mean over the batch, in nats
    gradient_norm  before clipping
    rate           that the update had
    is_skipped     a gradient overflowed, so the weights are as before
    """

    loss: float
    gradient_norm: float
    rate: float
    is_skipped: bool


class Trainer:
    """A model, its optimizer, and where they are.

    recipe      see `Recipe`
    device      where the model is
    micro       rows that go through the model at once
    step        batches seen
    n_updates   of the weights; those that overflowed are not counted, and the learning rate follows this number
    loss_scale  of the next batch
    """

    def __init__(self, recipe: Recipe, model: Transformer, *, micro: int) -> None:
        self.recipe, self.model, self.micro = recipe, model, micro
        self.device = next(model.parameters()).device
        self.step = self.n_updates = 0
        self.loss_scale = LossScale() if recipe.precision == "float16" else LossScale(scale=1.0)
        decays, others = decay_groups(model)
        self.optimizer = torch.optim.AdamW(
            [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=0.0,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.epsilon,
            fused=True,
        )

    def update(self, rows_BT: Tensor) -> UpdateResult:
        """See a batch, and change the weights.

        rows_BT  ids [batch, context + 1]
        """
        loss = self.accumulate(rows_BT)
        scale, parameters = self.loss_scale.scale, list(self.model.parameters())
        norm = float(gradient_norm(parameters)) / scale
        rate, overflowed = self.recipe.rate(self.n_updates), not math.isfinite(norm)
        self.step += 1
        if not overflowed:
            # The norm is measured with 1e-6 added, as DeeperSpeed does.
            excess = (norm + 1e-6) / self.recipe.clip
            factor = 1 / (scale * max(excess, 1.0))
            if factor != 1:
                torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.n_updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.precision == "float16":
            self.loss_scale = self.loss_scale.after(overflowed=overflowed)
        return UpdateResult(loss=loss, gradient_norm=norm, rate=rate, is_skipped=overflowed)

    def accumulate(self, rows_BT: Tensor) -> float:
        """Add the gradients of a batch, `micro` rows at a time; returns the mean loss."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        scale = self.loss_scale.scale
        for rows in rows_BT.split(self.micro):
            share = len(rows) / len(rows_BT)
            with self.products():
                loss = self.model(rows, scale * share)
            loss.backward()
            total += loss.detach().double() / scale
        return float(total)

    def products(self) -> AbstractContextManager[object]:
        """A block in which products are computed as the recipe says."""
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.recipe.precision))


def decay_groups(model: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights that decay, which are all matrices, and those that do not: norms and biases."""
    weights: list[Tensor] = list(model.parameters())
    return [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]


def gradient_norm(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Norm of all gradients together, as float32 norms of each added in float64."""
    norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
    return torch.stack(norms).double().square().sum().sqrt()


def digest(model: torch.nn.Module) -> str:
    """64 bits that change with any bit of any weight, as 16 hexadecimal digits; the same on every device.

    Each weight's bits are multiplied by an odd number that its place gives, and the products added modulo 2^64, so a
    device may add them in any order.
    """
    total = 0
    for i, weight in enumerate(model.state_dict().values()):
        bits = weight.detach().contiguous().view(torch.int32).flatten()
        total = (total * 0x9E3779B97F4A7C15 + i + _digest_of(bits)) % 2**64
    return f"{total:016x}"


def _digest_of(bits: Tensor) -> int:
    found, size = 0, min(len(bits), 1 << 22)
    place = torch.arange(size, device=bits.device, dtype=torch.int64)
    for start in range(0, len(bits), max(size, 1)):
        part = bits[start : start + size].long()
        factors = (place[: len(part)] + start) * _signed(0xD1B54A32D192ED03)
        factors = (factors ^ (factors >> 29)) * 2 + 1
        found += int((part * factors).sum())
    return found % 2**64


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
