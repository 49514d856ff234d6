"""Another engine behind the same protocol: transformers' own model scores, writes and is evaluated like a GGUF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import GPTNeoXForCausalLM

from engine.nano import HELDOUT, NANO, nano_files
from pythia_gguf import load
from pythia_gguf.engine.batch import write_all
from pythia_gguf.engine.model import Model
from pythia_gguf.engine.protocol import Engine, Part, Sequences
from pythia_gguf.engine.scoring import Request, score_requests
from pythia_gguf.engine.windows import Windows
from pythia_gguf.engine.writing import begin_writing, options_of
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.tokenizer import TextTokenizer


class TorchSequences:
    """Token lists; each step reads all of them anew, in float32."""

    def __init__(self, hf: GPTNeoXForCausalLM, n_sequences: int, n_context: int) -> None:
        self._hf, self.n_sequences, self.n_context, self.n_slice = hf, n_sequences, n_context, n_context
        self._ids: dict[int, list[int]] = {}

    def open(self) -> int:
        seq = next(i for i in range(self.n_sequences) if i not in self._ids)
        self._ids[seq] = []
        return seq

    def close(self, seq: int) -> None:
        del self._ids[seq]

    def length(self, seq: int) -> int:
        return len(self._ids[seq])

    def truncate(self, seq: int, n_tokens: int) -> None:
        del self._ids[seq][n_tokens:]

    def fork(self, seq: int, n_tokens: int) -> int:
        new = self.open()
        self._ids[new] = self._ids[seq][:n_tokens]
        return new

    def room_for(self, n_rows: int) -> np.ndarray:
        return np.empty((n_rows, self._hf.config.vocab_size), np.float32)

    def step(self, parts: Sequence[Part], room: np.ndarray | None = None) -> np.ndarray:
        rows = [self.room_for(0)]
        for part in parts:
            self._ids[part.seq] += [int(i) for i in part.ids]
            with torch.no_grad():
                logits = self._hf(torch.tensor([self._ids[part.seq]])).logits[0]
            rows.append(logits[len(logits) - part.n_wanted :].numpy())
        return np.concatenate(rows)


class TorchEngine:
    """A model of transformers as `pythia_gguf.engine.protocol.Engine` wants it."""

    def __init__(self, folder: Path, tokenizer: TextTokenizer) -> None:
        self._hf = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = tokenizer
        self.n_vocab: int = self._hf.config.vocab_size
        self.n_context: int = self._hf.config.max_position_embeddings
        self.n_parameters = sum(p.numel() for p in self._hf.parameters())
        self.bytes_per_step = 4 * self.n_parameters
        self.facts: Mapping[str, Any] = {"file": folder.name, "quant": "F32", "activations": "float32"}

    def kv_bytes(self, n_tokens: int) -> int:
        return n_tokens * self._hf.config.hidden_size * self._hf.config.num_hidden_layers * 8

    def sequences(
        self, n_sequences: int = 1, n_context: int | None = None, *, kv_bytes: int | None = None
    ) -> TorchSequences:
        return TorchSequences(self._hf, n_sequences, n_context or self.n_context)


@pytest.fixture(scope="module")
def ours() -> Model:
    return load(nano_files()["F16"], gelu="erf", cache="f32", threads=2)


@pytest.fixture(scope="module")
def engine(ours: Model) -> Engine:
    return TorchEngine(NANO, ours.tokenizer)


def test_both_are_engines(ours: Model, engine: Engine):
    """For mypy, too."""
    for each in (ours, engine):
        sequences: Sequences = each.sequences(2, 16)
        assert (sequences.n_sequences, sequences.n_context) == (2, 16)
        assert {"file", "quant", "activations"} <= each.facts.keys()


def test_scores_of_both_agree(ours: Model, engine: Engine):
    """Float32 on both sides, which is 1e-5 nats; the other GELU would be off by 5e-4."""
    ids = tuple(ours.tokenizer.encode(HELDOUT.read_text("utf-8")[:400]))
    requests = [Request(ids=ids[:n], start=n - 3) for n in (10, 20, 60)]
    pairs = zip(score_requests(ours, requests), score_requests(engine, requests), strict=True)
    for one, other in pairs:
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert one.is_greedy == other.is_greedy
    tokens = Windows(engine, 32).logits(ids[:8], n_last=2)
    assert np.abs(tokens - Windows(ours, 32).logits(ids[:8], n_last=2)).max() < 1e-3 * tokens.std()


def test_texts_of_both_are_the_same(ours: Model, engine: Engine):
    prompts = ["def main(", "import ", "class A:\n    def __init__(self"]
    texts = []
    for each in (ours, engine):
        writings = [
            begin_writing(each, prompt, *options_of({"temperature": 0, "max_tokens": 12})) for prompt in prompts
        ]
        write_all(each, writings)
        texts.append([w.text for w in writings])
    assert texts[0] == texts[1]


def test_the_harness_takes_either(ours: Model, engine: Engine):
    pairs = [("def main(", "self):"), ("", "import os"), ("for i in", " range(")]
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    until = [Instance(request_type="generate_until", doc={}, arguments=("import ", {"until": ["\n"]}), idx=0)]
    one, other = PythiaLM(ours), PythiaLM(engine)
    for a, b in zip(one.loglikelihood(asked), other.loglikelihood(asked), strict=True):
        assert a == (pytest.approx(b[0], abs=1e-4), b[1])
    assert one.generate_until(until) == other.generate_until(until)
    assert other.get_model_info()["pythia_gguf"]["file"] == engine.facts["file"]
    assert other.get_model_info()["model_num_parameters"] == one.get_model_info()["model_num_parameters"]
