"""Equal requests get equal bits, whatever else runs: alone or not, in any order, with kept beginnings or without."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.nano import HELDOUT
from pythia_gguf import load
from pythia_gguf.serve.registry import fingerprint_of
from serve.running import MODEL, OTHER, RunningServer, running, two_models

# The campaign takes 1,000.
N_REQUESTS = 120


def requests(n: int) -> list[dict[str, Any]]:
    """Echo requests of very different lengths; many begin alike, and some write on."""
    text, drawn = HELDOUT.read_text("utf-8"), random.Random(7)
    starts = [drawn.randrange(9_000) for _ in range(6)]
    found = []
    for i in range(n):
        at = drawn.choice(starts)
        writes = drawn.choice((0, 1, 8))
        found.append(
            {
                "model": drawn.choice((MODEL, MODEL, OTHER)),
                "prompt": text[at : at + drawn.choice((1, 40, 200, 700))],
                "echo": drawn.random() < 0.7 or writes == 0,
                "logprobs": drawn.choice((0, 1, 5)),
                "max_tokens": writes,
                "seed": i,
            }
        )
    return found


def bits(answer: dict[str, Any]) -> tuple[object, ...]:
    """All that must not differ; floats in hexadecimal."""
    told = [c | {"logprobs": c["logprobs"] and str(c["logprobs"])} for c in answer["choices"]]
    return answer["system_fingerprint"], str(told), str(answer["usage"])


def answers(server: RunningServer, asked: list[dict[str, Any]], n_clients: int, seed: int) -> list[tuple[object, ...]]:
    """Answers in the order of the requests, which are sent in another."""
    order = list(range(len(asked)))
    random.Random(seed).shuffle(order)
    found: dict[int, tuple[object, ...]] = {}

    def ask(i: int) -> None:
        response = server.post("/v1/completions", asked[i])
        assert response.status_code == 200, response.text
        found[i] = bits(response.json())

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(ask, order))
    return [found[i] for i in range(len(asked))]


def test_no_bit_depends_on_what_else_runs(server: RunningServer):
    asked = requests(N_REQUESTS)
    alone = answers(server, asked, 1, 1)
    assert answers(server, asked, 8, 2) == alone
    with running(*two_models(), "--threads", "1", "--parallel", "3", "--no-prefix-cache") as other:
        assert answers(other, asked, 8, 3) == alone
    assert len(set(alone)) > N_REQUESTS // 2


def test_the_fingerprint_names_all_that_decides_the_numbers(server: RunningServer):
    """Another file, GELU, activations or cache have another one; threads have not."""

    def fingerprint(**options: Any) -> str:
        return fingerprint_of(load(two_models()[0], **options))

    of_both = [server.complete("a", max_tokens=1, model=name)["system_fingerprint"] for name in (MODEL, OTHER)]
    assert fingerprint(threads=1) == of_both[0]
    others = [fingerprint(gelu="tanh"), fingerprint(activations="float32"), fingerprint(cache="f32")]
    assert len({*of_both, *others}) == 5
