"""Models by name, within the memory that is given; and what becomes of a request whose model fails."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.nano import nano_files
from engine.test_not_finite import exploding
from pythia_gguf import load
from serve.running import RunningServer, running

QUANTS = ("Q4_0", "Q5_0", "Q8_0", "Q4_K_M")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Memory for two models at most, and one whose logits are no numbers."""
    broken = tmp_path_factory.mktemp("broken") / "broken.gguf"
    exploding(broken)
    files: list[Path] = [*(nano_files()[q] for q in QUANTS), broken]
    with running(*files, "--memory", "40M", "--parallel", "2") as started:
        yield started


def loaded(server: RunningServer) -> set[str]:
    return {card["id"] for card in server.http.get("/v1/models").json()["data"] if card["is_loaded"]}


def test_models_give_way_to_those_that_are_asked_for(small: RunningServer):
    texts = {}
    for name in [f"nano.{q}" for q in (*QUANTS, *QUANTS)]:
        text = small.complete("def main(", model=name, max_tokens=5, seed=1)["choices"][0]["text"]
        assert texts.setdefault(name, text) == text
        assert name in loaded(small)
        assert small.metric("memory_bytes") <= 40 << 20
    assert len(loaded(small)) < len(QUANTS)
    with ThreadPoolExecutor(8) as pool:
        asked = [f"nano.{QUANTS[i % 2]}" for i in range(16)]
        for name, response in zip(asked, pool.map(lambda n: answer(small, n), asked), strict=True):
            assert response == texts[name]


def answer(server: RunningServer, name: str) -> str:
    text: str = server.complete("def main(", model=name, max_tokens=5, seed=1)["choices"][0]["text"]
    return text


def test_a_model_that_fails_fails_alone(small: RunningServer):
    """Its answer says where; others go on."""
    body = {"model": "broken", "prompt": "def main(", "max_tokens": 5}
    response = small.post("/v1/completions", body)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "model_failed"
    assert "infinity or NaN at position" in response.json()["error"]["message"]
    streamed = small.post("/v1/completions", body | {"stream": True})
    assert "infinity or NaN" in streamed.text
    assert "[DONE]" not in streamed.text
    apart = {"models": ["nano.Q4_0", "broken"], "prompt": "def main("}
    assert small.post("/v1/divergence", apart).json()["error"]["code"] == "model_failed"
    assert small.complete("def", model="nano.Q4_0", max_tokens=1)["usage"]["completion_tokens"] == 1


def test_a_model_that_does_not_fit_is_refused(pythia):
    code, out, err = pythia("serve", nano_files()["F16"], "--memory", "1M", "--port", "0", "--check")
    assert (code, out) == (2, "")
    assert "nano.F16 needs" in err


def test_the_divergence_is_that_of_the_logits(small: RunningServer):
    """Computed here in float64, over all tokens."""
    a, b = (load(nano_files()[q], threads=1) for q in ("Q8_0", "Q4_0"))
    ids = a.tokenizer.encode("def main(argv):\n    return 0\n" * 8)
    told = small.post("/v1/divergence", {"models": ["nano.Q8_0", "nano.Q4_0"], "prompt": ids}).json()
    p, q = (_log_softmax(m.logits(ids).astype(np.float64)) for m in (a, b))
    kl = (np.exp(p) * (p - q)).sum(axis=1)[:-1]
    assert told["kl"][0] is None
    # The kernel takes exponentials in float32: 1e-6 of the sum, which is 1.
    assert told["kl"][1:] == pytest.approx(kl.tolist(), abs=2e-6)
    assert kl.min() > 2e-5
    at = np.arange(len(ids) - 1), np.array(ids[1:])
    assert np.array(told["logprobs"][1:]) == pytest.approx(np.stack([p[at], q[at]], axis=1), abs=1e-5)
    assert told["is_same_top"][1:] == (p.argmax(axis=1) == q.argmax(axis=1))[:-1].tolist()
    with ThreadPoolExecutor(8) as pool:  # one after the other, and each the same
        body = {"models": ["nano.Q8_0", "nano.Q4_0"], "prompt": ids}
        for response in pool.map(lambda body: small.post("/v1/divergence", body), [body] * 8):
            assert response.json() == told
    same = small.post("/v1/divergence", {"models": ["nano.Q8_0"] * 2, "prompt": "def"}).json()
    assert same["kl"] == [None] * len(same["tokens"][:1]) + [0.0] * (len(same["tokens"]) - 1)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
