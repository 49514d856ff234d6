"""Mean cross entropy of many outputs, a chunk of tokens at a time: never are all logits held, nor their gradients.

The gradients are computed in the forward pass, while the logits of a chunk are there: no product is computed twice.
Shapes: N tokens, C tokens of a chunk, D width, V outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Of logits of one chunk, in bytes of float32.
_CHUNK_BYTES = 64 << 20


def mean_loss(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float = 1.0) -> Tensor:
    """Mean of -ln p(target) over all tokens, times `scale`; float32, whatever the products were computed in.

    scale  of the loss; a float16 gradient would be 0 without it, so it must be there when the gradient is computed
    """
    if torch.is_grad_enabled() and (hidden_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _MeanLoss.apply(hidden_ND, weight_VD, targets_N, scale)
        return loss
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for start, stop in _chunks(hidden_ND, weight_VD):
        logits = _product(hidden_ND[start:stop], weight_VD.t()).float()
        total += torch.nn.functional.cross_entropy(logits, targets_N[start:stop], reduction="sum")
    return total * (scale / len(targets_N))


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
        kind = _kind(hidden_ND)
        factor = scale / len(targets_N)
        hidden_ND, weight = hidden_ND.to(kind), weight_VD.to(kind)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        # Sums over chunks are float32, as all sums of gradients are.
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        for start, stop in _chunks(hidden_ND, weight_VD):
            here_CD, targets_C = hidden_ND[start:stop], targets_N[start:stop, None]
            logits_CV = torch.mm(here_CD, weight.t()).float()
            of_all_C = torch.logsumexp(logits_CV, -1, keepdim=True)
            total += (of_all_C - logits_CV.gather(1, targets_C)).sum()
            grad_CV = logits_CV.sub_(of_all_C).exp_()
            grad_CV.scatter_add_(1, targets_C, torch.full_like(of_all_C, -1))
            grad_CV = grad_CV.mul_(factor).to(kind)
            torch.mm(grad_CV, weight, out=grad_hidden_ND[start:stop])
            if kind == torch.float32:
                grad_weight_VD.addmm_(grad_CV.t(), here_CD)
            else:
                grad_weight_VD += torch.mm(grad_CV.t(), here_CD)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD)
        return total * factor

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_ND.mul_(grads[0]), grad_weight_VD.mul_(grads[0]), None, None


def _chunks(hidden_ND: Tensor, weight_VD: Tensor) -> list[tuple[int, int]]:
    n, size = len(hidden_ND), max(1, _CHUNK_BYTES // (4 * len(weight_VD)))
    return [(start, min(n, start + size)) for start in range(0, n, size)]


def _kind(x: Tensor) -> torch.dtype:
    """The type of products: that of the block's autocast, else of the activations."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _product(a: Tensor, b: Tensor) -> Tensor:
    kind = _kind(a)
    return torch.mm(a.to(kind), b.to(kind))
