"""The list of ops: words by name on both sides, a block for every architecture, products without a bias."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.nano import nano_files
from engine.toys import IDS, toy_model, write_gguf
from pythia_gguf.arch import ARCHITECTURES
from pythia_gguf.engine.model import Model, load
from pythia_gguf.engine.oplist import BLOCKS
from pythia_gguf.engine.protocol import Part
from pythia_gguf.engine.runner import Runner
from pythia_gguf.engine.session import Session
from pythia_gguf.kernels import op_words
from pythia_gguf.kernels.matmul import matmul

WORDS = {name: value for name, value in vars(op_words).items() if name.endswith("Op") and isinstance(value, type)}


@pytest.mark.parametrize("name", WORDS)
def test_words_fit_and_none_can_be_left_out(name: str):
    words, fields = WORDS[name], WORDS[name]._fields
    places = next(v for v in vars(op_words).values() if type(v) is words)
    assert tuple(places) == tuple(range(1, 1 + len(fields)))
    assert places[-1] < op_words.NO_WAIT
    for left_out in fields:
        with pytest.raises(TypeError, match=left_out):
            words(**{field: 0 for field in fields if field != left_out})


def test_every_architecture_has_its_block():
    assert BLOCKS.keys() == ARCHITECTURES.keys()


def with_vectors(model: Model, vectors: dict[str, np.ndarray]) -> Runner:
    """The model with other biases."""
    return replace(model.runner, weights=replace(model.runner.weights, vectors=vectors))


def without_bias(model: Model) -> Runner:
    """The model with no bias before the activation."""
    return with_vectors(model, {k: v for k, v in model.runner.weights.vectors.items() if "ffn_up" not in k})


def logits(runner: Runner, ids: list[int]) -> np.ndarray:
    session = Session(runner, n_context=len(ids))
    return session.step([Part(seq=session.open(), ids=ids, n_wanted=len(ids))])


@pytest.mark.parametrize("gelu", ["erf", "tanh"])
def test_product_without_bias_keeps_its_activation(gelu: str, tmp_path: Path):
    """Against NumPy in float64, and the activation is there: without it the values are others."""
    runner = without_bias(load(write_gguf(tmp_path / "toy.gguf", toy_model()), gelu=gelu, threads=2))
    session, seen = Session(runner, n_context=len(IDS)), {}
    names = ("blocks.0.ln2.normalized", "blocks.0.mlp.post")
    hooks = dict.fromkeys(names, lambda x, place: seen.__setitem__(place.name, x.copy()))
    session.step([Part(seq=session.open(), ids=IDS)], hooks=hooks)
    x, h = (seen[name] for name in names)
    packed = runner.weights.matrices["blk.0.ffn_up.weight"].packed
    v = matmul(packed, x, "float32")[:, : h.shape[1]].astype(np.float64)
    inner = v / math.sqrt(2) if gelu == "erf" else math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)
    curve = np.vectorize(math.erf) if gelu == "erf" else np.tanh
    expected = v * (1 + curve(inner)) / 2
    # GELU's own error is below 4e-7 of |x|, see kernels/curves.py.
    assert np.abs(h - expected).max() <= 1e-6 * np.abs(v).max()
    assert np.abs(v - expected).max() > 0.1


@pytest.mark.parametrize("n", [1, 20])
def test_product_without_bias_is_quantized_as_one_with_zeros(n: int):
    """GELU and int8 form are made by the op itself where nobody looks; a bias of zeros takes the other way to both."""
    model = load(nano_files()["Q4_K_M"], threads=2)
    vectors = model.runner.weights.vectors
    zeros = {k: np.zeros_like(v) for k, v in vectors.items() if k.endswith("ffn_up.bias")}
    assert len(zeros) == model.config.n_layers
    expected = logits(with_vectors(model, vectors | zeros), IDS[:n])
    assert np.array_equal(logits(without_bias(model), IDS[:n]), expected)
    assert not np.array_equal(model.logits(IDS[:n]), expected)
