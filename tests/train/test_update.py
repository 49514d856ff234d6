"""An update is Pythia's: AdamW by its formula, groups, clipping, loss scale."""

from __future__ import annotations

import math

import pytest
import torch

from pythia_gguf.train.model import Transformer, init_weights
from pythia_gguf.train.recipe import Recipe
from pythia_gguf.train.update import LossScale, Trainer, decay_groups, digest

from .small import recipe


def trainer(of: Recipe, micro: int = 8) -> Trainer:
    model = Transformer(of)
    init_weights(model, torch.Generator().manual_seed(1))
    return Trainer(of, model, micro=micro)


def batch(step: int) -> torch.Tensor:
    return torch.randint(0, 300, (8, 33), generator=torch.Generator().manual_seed(step))


def apart(r: Recipe, wrong: str = "") -> float:
    """Mean difference of all weights after six updates from those that the formula of AdamW gives in float64.

    wrong  another formula
    """
    ours = trainer(r)
    weights = {n: p.detach().double().clone() for n, p in ours.model.named_parameters()}
    m = {n: torch.zeros_like(w) for n, w in weights.items()}
    v = {n: torch.zeros_like(w) for n, w in weights.items()}
    for step in range(1, 7):
        exact = Transformer(r).double()
        exact.load_state_dict(weights)
        exact(batch(step)).backward()
        grads = {n: p.grad.clone() for n, p in exact.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
        rate = r.rate(step if wrong == "rate" else step - 1)
        for name, w in weights.items():
            g = grads[name] / (1.0 if wrong == "clip" else max(1.0, (norm + 1e-6) / r.clip))
            decay = r.weight_decay * w if w.ndim > 1 or wrong == "groups" else torch.zeros_like(w)
            if wrong == "coupled":
                g, decay = g + decay, torch.zeros_like(w)
            m[name] = r.beta1 * m[name] + (1 - r.beta1) * g
            v[name] = r.beta2 * v[name] + (1 - r.beta2) * g * g
            n = step + (wrong == "correction")
            change = (m[name] / (1 - r.beta1**n)) / ((v[name] / (1 - r.beta2**n)).sqrt() + r.epsilon)
            w -= rate * (change + decay)
        updated = ours.update(batch(step))
        assert wrong or updated.gradient_norm == pytest.approx(norm, rel=1e-4)
        assert wrong or (updated.rate == rate and norm > r.clip)
    differences = [(p.detach() - weights[n]).abs().flatten() for n, p in ours.model.named_parameters()]
    return float(torch.cat(differences).mean())


def test_updates_are_adamw_by_its_formula():
    """Decoupled decay of matrices, both corrections, the gradient clipped, the first update at rate 0.

    Adam divides a gradient by its own size, so the rounding of small ones shows in full.
    """
    r = recipe(clip=0.1, weight_decay=0.3, epsilon=1e-6)
    ours = apart(r)
    others = {wrong: apart(r, wrong) for wrong in ("rate", "clip", "groups", "coupled", "correction")}
    assert ours < 1e-7, (ours, others)
    assert min(others.values()) > 4 * ours, (ours, others)


def test_the_first_update_has_rate_0():
    ours = trainer(recipe())
    before = digest(ours.model)
    assert ours.update(batch(1)).rate == 0
    assert digest(ours.model) == before
    ours.update(batch(2))
    assert digest(ours.model) != before


def test_what_decays():
    decays, others = decay_groups(Transformer(recipe()))
    assert sum(p.ndim == 2 for p in decays) == len(decays) == 2 + 2 * 4
    assert all(p.ndim == 1 for p in others) and len(others) == 2 + 2 * 8


@pytest.mark.parametrize("micro", [1, 3, 4])
def test_pieces_of_a_batch_add_up(micro: int):
    whole, pieces = trainer(recipe()), trainer(recipe(), micro=micro)
    assert pieces.accumulate(batch(1)) == pytest.approx(whole.accumulate(batch(1)), rel=1e-6)
    for a, b in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        # Sums in another order: some roundings of float32 of the largest gradient.
        assert (a.grad - b.grad).abs().max() < 3e-6 * a.grad.abs().max()


def test_bfloat16_trains():
    ours = trainer(recipe(precision="bfloat16"))
    losses = [ours.update(batch(1)).loss for _ in range(12)]
    assert losses[-1] < losses[0] - 0.5
    assert all(p.dtype == torch.float32 for p in ours.model.parameters())


def test_a_gradient_that_is_not_finite_changes_nothing():
    ours = trainer(recipe())
    ours.update(batch(1))
    ours.update(batch(2))
    with torch.no_grad():
        ours.model.gpt_neox.final_layer_norm.bias[0] = math.inf
    before, updates = digest(ours.model), ours.n_updates
    updated = ours.update(batch(3))
    assert updated.is_skipped and not math.isfinite(updated.gradient_norm)
    assert digest(ours.model) == before
    assert (ours.step, ours.n_updates) == (3, updates)
    assert ours.recipe.rate(ours.n_updates) == updated.rate


def test_loss_scale_is_deeperspeeds():
    """2^12; doubled after 1,000 clean updates; the second overflow halves it, and each one after until it grows."""
    scale = LossScale()

    def after(n: int, *, overflowed: bool) -> float:
        nonlocal scale
        for _ in range(n):
            scale = scale.after(overflowed=overflowed)
        return scale.scale

    assert after(999, overflowed=False) == 2**12
    assert after(1, overflowed=False) == 2**13
    assert after(1, overflowed=True) == 2**13
    assert after(2, overflowed=True) == 2**11
    assert after(999, overflowed=False) == 2**11 and after(1, overflowed=True) == 2**10
    assert after(1000, overflowed=False) == 2**11 and after(1, overflowed=True) == 2**11
    assert after(20, overflowed=True) == 1


def test_every_bit_is_in_the_digest():
    model = trainer(recipe()).model
    seen = {digest(model)}
    weights = list(model.state_dict().values())
    for weight in weights:
        flat = weight.view(torch.int32).flatten()
        for place, bit in ((0, 0), (len(flat) - 1, 31), (len(flat) // 2, 22)):
            flat[place] ^= 1 << bit if bit < 31 else -(1 << 31)
            seen.add(digest(model))
            flat[place] ^= 1 << bit if bit < 31 else -(1 << 31)
        # Two weights that change places are another model, unless they are equal.
        flat[0], flat[1] = flat[1].clone(), flat[0].clone()
        seen.add(digest(model))
        flat[0], flat[1] = flat[1].clone(), flat[0].clone()
    n_swaps = sum(not torch.equal(w.flatten()[0], w.flatten()[1]) for w in weights)
    assert len(seen) == 1 + 3 * len(weights) + n_swaps
