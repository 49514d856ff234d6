"""lm-evaluation-harness gets the same numbers from the server as in this process, and needs no tokenizer for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

from engine.nano import HELDOUT, nano_files
from evals.local_tasks import items, run, write_tasks
from pythia_gguf import load
from pythia_gguf.evals.harness import PythiaLM
from serve.running import MODEL, RunningServer

CONTEXT = 512


class OneLess(PythiaLM):
    """The model in this process with the windows of lm_eval for servers: a token is written after each."""

    @property
    def max_length(self) -> int:
        return CONTEXT - 1


@cache
def here() -> PythiaLM:
    return OneLess(load(nano_files()["Q4_K_M"], threads=2))


@pytest.fixture
def there(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> LocalCompletionsAPI:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return LocalCompletionsAPI(
        model=MODEL,
        base_url=f"{server.url}/v1/completions",
        tokenizer_backend="remote",
        max_length=CONTEXT + 1,
        num_concurrent=4,
        max_retries=1,
    )


def instances(kind: str, arguments: Sequence[tuple[object, ...]]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_loglikelihoods(there: LocalCompletionsAPI):
    """Multiple choice, an empty context, one that is longer than the model's, and white space at the border."""
    text = HELDOUT.read_text("utf-8")
    pairs = [("import", f" {word}") for word in ("sys", "os", "banana", "numpy as np")]
    pairs += [("", "def main("), ("x = ", "1"), (text[:4_000], text[4_000:4_040]), ("a\N{SNOWMAN}", "\N{SNOWMAN} b")]
    greedy = load(nano_files()["Q4_K_M"]).generate("def main(", max_tokens=3, temperature=0).text
    pairs += [("def main(", greedy), ("def main(", f"{greedy}\N{SNOWMAN}")]
    pairs += [(text[i : i + 60], text[i + 60 : i + 90]) for i in range(0, 2_000, 100)]
    asked = instances("loglikelihood", pairs)
    told, expected = there.loglikelihood(asked), here().loglikelihood(asked)
    assert [greedy for _, greedy in told] == [greedy for _, greedy in expected]
    assert {greedy for _, greedy in told} == {True, False}
    assert [p for p, _ in told] == pytest.approx([p for p, _ in expected], rel=0, abs=1e-9)


def test_rolling_loglikelihoods(there: LocalCompletionsAPI):
    """One window, and several."""
    text = HELDOUT.read_text("utf-8")
    asked = instances("loglikelihood_rolling", [(text[:n],) for n in (1, 30, 900, 4_000)])
    told, expected = there.loglikelihood_rolling(asked), here().loglikelihood_rolling(asked)
    assert told == pytest.approx(expected, rel=0, abs=1e-9)


def test_texts(there: LocalCompletionsAPI):
    options = [{"until": ["\n"]}, {"until": ["(", "zz"], "max_gen_toks": 30}, {"until": [], "max_gen_toks": 5}]
    prompts = ["def main(", "import ", "class A:\n    def", HELDOUT.read_text("utf-8")[:200]]
    asked = instances("generate_until", [(p, dict(o)) for p in prompts for o in options])
    told, expected = there.generate_until(asked), here().generate_until(asked)
    assert told == expected
    assert len(set(told)) > 4


def test_tasks_of_every_kind(there: LocalCompletionsAPI, tmp_path: Path):
    """The harness's own definitions: log-likelihoods, rolling ones and written texts, item by item."""
    names = ["lambada_openai", "arc_challenge", "wikitext", "nq_open"]
    folder = write_tasks(tmp_path / "tasks")
    told, expected = (run(lm, folder, *names) for lm in (there, here()))
    for name in names:
        got, wanted = ([response for _, response in items(results, name)] for results in (told, expected))
        assert len(got) >= 2
        if name == "nq_open":
            assert got == wanted
            continue
        got, wanted = ([r if isinstance(r, tuple | list) else (r, None) for r in each] for each in (got, wanted))
        assert [greedy for _, greedy in got] == [greedy for _, greedy in wanted]
        assert [p for p, _ in got] == pytest.approx([p for p, _ in wanted], rel=0, abs=1e-9)
