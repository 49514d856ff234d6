"""Logits are those of transformers: on wide random weights, where a wrong formula shows, and on the sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.models.gpt_neox import modeling_gpt_neox

from engine.nano import HELDOUT, is_refused, nano_files
from engine.toys import IDS, distance, hf_from_gguf, hf_logits, toy_model, write_gguf
from pythia_gguf.choices import ACTIVATIONS
from pythia_gguf.engine.model import load
from pythia_gguf.plan.quants import QUANTS

# What our float32 sums lose: a few units in the last of 24 bits over some hundred terms a layer, over logits of size 1.
# transformers runs in float64.
F32_MOST = 1e-4
# Keys and values are rounded to 11 bits (5e-4 each), and errors of three to six layers add up.
F16_MOST = 5e-3
# Each product loses 2**-18 and less of what it adds up, 64 times what float32 does; bfloat16 alone is off by
# hundredths.
BF16X3_MOST = 2e-4


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"parallel": False},
        {"act": "gelu_new"},
        {"base": 50000.0},
        {"share": 1.0},
        {"share": 0.5, "parallel": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_f32_toy_is_transformers(kind: dict, activations: str, tmp_path: Path):
    """Plain weights are multiplied with float32 activations where int8 is asked for."""
    hf = toy_model(**kind)
    path = write_gguf(tmp_path / "toy.gguf", hf)
    if is_refused(path, activations):
        return
    gelu = "tanh" if kind.get("act") == "gelu_new" else "erf"
    ours = load(path, gelu=gelu, activations=activations, threads=2).logits(IDS)
    assert distance(ours, hf_logits(hf, IDS)) <= (BF16X3_MOST if activations == "bf16x3" else F32_MOST)


def test_f16_toy_is_transformers(tmp_path: Path):
    path = write_gguf(tmp_path / "toy.gguf", toy_model(), "F16")
    hf = hf_from_gguf(path, "gelu")
    ours = load(path, gelu="erf", threads=2)
    assert ours.cache == "f16"
    assert distance(ours.logits(IDS), hf_logits(hf, IDS)) <= F16_MOST
    exact = load(path, gelu="erf", threads=2, cache="f32").logits(IDS)
    assert distance(exact, hf_logits(hf, IDS)) <= F32_MOST


def wrong_gelu(monkeypatch: pytest.MonkeyPatch) -> dict:
    return {"act": "gelu_new"}


def wrong_rotary(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Neighbours are turned with each other, as in GPT-J."""

    def rotate_half(x):
        a, b = x[..., ::2], x[..., 1::2]
        return np_stack(-b, a, x.shape)

    def np_stack(a, b, shape):
        import torch

        return torch.stack((a, b), dim=-1).reshape(shape)

    monkeypatch.setattr(modeling_gpt_neox, "rotate_half", rotate_half)
    return {}


@pytest.mark.parametrize("wrong", [wrong_gelu, wrong_rotary])
def test_nearest_wrong_formula_misses_tenfold(wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_gguf(tmp_path / "toy.gguf", toy_model())
    ours = load(path, gelu="erf", threads=2).logits(IDS)
    assert distance(ours, hf_logits(toy_model(**wrong(monkeypatch)), IDS)) > 10 * F32_MOST


def test_wrong_order_of_qkv_misses_tenfold(tmp_path: Path):
    """Rows left as transformers has them: q, k and v head by head."""
    hf = toy_model()
    right = load(write_gguf(tmp_path / "right.gguf", hf), gelu="erf", threads=2).logits(IDS)
    from engine import toys

    swapped = toy_model()
    names = toys.gguf_names(swapped)
    for name, p in names.items():
        if "attn_qkv" in name:
            rest = p.shape[1:]
            h, d = swapped.config.num_attention_heads, swapped.config.hidden_size
            p.data = p.data.reshape(3, h, d // h, *rest).swapaxes(0, 1).reshape(3 * d, *rest).contiguous()
    wrong = load(write_gguf(tmp_path / "wrong.gguf", swapped), gelu="erf", threads=2).logits(IDS)
    assert distance(right, hf_logits(hf, IDS)) <= F32_MOST
    assert distance(wrong, hf_logits(hf, IDS)) > 10 * F32_MOST


def test_f16_sample_is_transformers():
    path = nano_files()["F16"]
    model = load(path, gelu="erf", threads=2)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8")[:3000])[:400]
    assert distance(model.logits(ids), hf_logits(hf_from_gguf(path, "gelu"), ids)) <= F16_MOST


@pytest.mark.slow
@pytest.mark.parametrize("quant", [q.name for q in QUANTS.values() if q.alias_of is None])
def test_float32_activations_are_transformers_on_decoded_weights(quant: str):
    path = nano_files()[quant]
    model = load(path, gelu="tanh", activations="float32", cache="f32", threads=2)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8")[3000:6000])[:200]
    assert distance(model.logits(ids), hf_logits(hf_from_gguf(path, "gelu_new"), ids)) <= F32_MOST
