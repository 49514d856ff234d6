"""The model in torch is transformers', its loss is cross entropy, and its first weights have Pythia's deviations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythia_gguf.arch import ARCHITECTURES
from pythia_gguf.hub.suite import MODELS
from pythia_gguf.train import loss as loss_file
from pythia_gguf.train.loss import mean_loss
from pythia_gguf.train.model import Transformer, init_weights, rotary_tables
from pythia_gguf.train.recipe import Recipe, pythia_recipe

from .small import recipe

ARCHITECTURE = ARCHITECTURES["gptneox"]


def made(of: Recipe, seed: int = 1) -> Transformer:
    """A model in which every part counts: biases are not 0, and norms not 1."""
    model = Transformer(of)
    init_weights(model, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def twin(model: Transformer) -> GPTNeoXForCausalLM:
    """transformers' model with the same weights."""
    keys = ARCHITECTURE.hf_keys(model.recipe.config()) | {"hidden_act": model.recipe.config().hidden_act}
    theirs = GPTNeoXForCausalLM(GPTNeoXConfig(**keys, tie_word_embeddings=False))
    # transformers 5 calls the output matrix lm_head in memory.
    names = {ARCHITECTURE.gguf_name(name, path="x"): name for name in theirs.state_dict()}
    state = {names[ARCHITECTURE.gguf_name(name, path="x")]: t for name, t in model.state_dict().items()}
    theirs.load_state_dict(state)
    return theirs.train(False)


def ids(n: int = 4, n_tokens: int = 32) -> torch.Tensor:
    return torch.randint(0, 300, (n, n_tokens), generator=torch.Generator().manual_seed(9))


CHANGES: dict[str, dict[str, Any]] = {
    "as Pythia": {},
    "erf": {"gelu": "erf"},
    "sequential": {"parallel_residual": False},
    "all dimensions rotated": {"rotary_share": 1.0},
    "another base": {"rotary_base": 500.0},
    "wide": {"feed_forward": 96, "heads": 2},
}


@pytest.mark.parametrize("name", CHANGES)
def test_logits_are_those_of_transformers(name: str):
    """Both in float32; transformers in float64 tells how far float32 itself is off: some 1e-6 of the deviation."""
    model = made(recipe(**CHANGES[name]))
    theirs = twin(model)
    with torch.no_grad():
        exact = theirs.double()(ids()).logits
        ours = model.logits(ids())
        apart = (ours - exact).abs().max() / exact.std()
        assert apart < 1e-5
        # Another formula of this model is seen: other GELU, other residual, other table.
        other = {"gelu": "erf" if model.recipe.gelu == "tanh" else "tanh"}
        wrong = Transformer(recipe(**CHANGES[name] | other))
        wrong.load_state_dict(model.state_dict())
        assert (wrong.logits(ids()) - exact).abs().max() / exact.std() > 3e-5


def test_names_and_shapes_are_those_of_the_architecture():
    for name in ("pythia-14m", "pythia-70m"):
        with torch.device("meta"):
            model = Transformer(pythia_recipe(MODELS[name]))
        config = model.recipe.config()
        expected = {ARCHITECTURE.hf_name(n, path="x"): s for n, s in ARCHITECTURE.tensor_shapes(config).items()}
        assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == expected
        assert sum(p.numel() for p in model.parameters()) == model.recipe.n_parameters


def test_weights_of_transformers_come_and_go_without_change(tmp_path: Path):
    from safetensors.torch import load_file

    from pythia_gguf.train.checkpoints import load_weights

    twin(made(recipe())).half().save_pretrained(tmp_path)
    model = Transformer(recipe())
    load_weights(model, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.half(), saved[name]), name


@pytest.mark.parametrize("chunk_bytes", [1200, 300 * 4 * 7, 1 << 20])
def test_loss_and_gradients_are_those_of_all_logits_at_once(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch):
    """In float64, where sums over chunks differ by some 1e-16."""
    monkeypatch.setattr(loss_file, "_CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(50, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(300, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 300, (50,), generator=generator)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets)
    wanted = torch.autograd.grad(expected * 3, (hidden, weight))
    found = mean_loss(hidden, weight, targets, scale=1.5)
    assert found.item() == pytest.approx(1.5 * expected.item(), rel=1e-6)
    grads = torch.autograd.grad(found * 2, (hidden, weight))
    # Logits and their gradients are float32 in between, whatever the products are in.
    for ours, theirs in zip(grads, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
    with torch.no_grad():
        assert mean_loss(hidden, weight, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_gradients_of_the_model_are_those_of_transformers():
    model = made(recipe())
    theirs = twin(model).double()
    rows = ids(n_tokens=33)
    model(rows).backward()
    logits = theirs(rows[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
    expected = {ARCHITECTURE.gguf_name(n, path="x"): p.grad for n, p in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        grad = expected[ARCHITECTURE.gguf_name(name, path="x")]
        assert parameter.grad is not None and grad is not None
        assert (parameter.grad - grad).abs().max() < 2e-5 * grad.abs().max(), name


def test_recomputing_changes_no_bit():
    grads = []
    for recomputes in (False, True):
        model = Transformer(recipe(), recomputes=recomputes)
        model.load_state_dict(made(recipe()).state_dict())
        model(ids(n_tokens=33)).backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None)


def test_float16_tables_are_as_far_off_as_pythias():
    """16 dimensions, 2,048 positions: angles up to 0.37 rad off, cosines up to 0.35 (gpt-neox issue 1003)."""
    exact, _ = rotary_tables(pythia_recipe(MODELS["pythia-70m"]))
    values = {f: getattr(pythia_recipe(MODELS["pythia-70m"]), f) for f in Recipe.__dataclass_fields__}
    half, _ = rotary_tables(Recipe(**values | {"rotary_table": "float16"}))
    assert exact.shape == (2048, 16)
    assert 0.3 < (exact - half).abs().max() < 0.4
    # The first frequency is 1, and float16 holds every whole number up to 2,048: only the cosine itself is rounded.
    assert (exact - half).abs()[:, 0].max() < 1e-3


@pytest.mark.parametrize("init", ["small", "normal"])
def test_first_weights(init: str):
    model = Transformer(recipe(hidden=256, feed_forward=1024, layers=3, init=init))
    init_weights(model, torch.Generator().manual_seed(1))
    into, out = (0.0395285, 2 / (3 * 16)) if init == "small" else (0.02, 0.02 / math.sqrt(6))
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert (weight == (1 if name.endswith("norm.weight") else 0)).all()
        else:
            expected = out if "dense.weight" in name or "4h_to_h" in name else into
            # The deviation of n draws is off by 1 / sqrt(2n) of itself; four times that.
            assert abs(weight.std().item() / expected - 1) < 4 / math.sqrt(2 * weight.numel()), name
            assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())
