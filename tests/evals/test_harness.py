"""The harness's own model `hf` on the same weights is the oracle: item by item, on real tasks and at every edge."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.nano import HELDOUT, NANO, is_refused, nano_files
from evals.local_tasks import BIAS, PUBLISHED, TASKS, items, run, write_tasks
from press.toy_gguf import widened
from pythia_gguf import load
from pythia_gguf.choices import ACTIVATIONS
from pythia_gguf.engine.scoring import Request
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.evals.tasks import load_tasks

pytestmark = pytest.mark.usefixtures("tasks_read_once")
# Nats, of the sum over an item's tokens: up to 100, and 1500 of wikitext. Our logits are rounded to float32, which is
# 7e-6 at most on items and 6e-5 on wikitext; `hf` runs in float64. The nearest wrong formulas are further away in the
# worst item of every task: 5e-4 the other GELU, 4e-4 keys and values in half precision, 3e-2 a context that is cut one
# token shorter, 1 a shifted token. A test below holds that.
NEAR = 1e-4
# Of bf16x3 3.4e-5 here; bfloat16 alone is 0.2 away.
BF16X3_NEAR = 2e-4
FLOAT32 = 2.0**-23
ENOUGH = 2e-4
TEXT = HELDOUT.read_text("utf-8")
SCORED = [name for name in TASKS if name not in ("nq_open", "gsm8k")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("harness") / "tasks")


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, whose weights are float16, as F32."""
    return widened(nano_files()["F16"], tmp_path_factory.mktemp("f32") / "nano.F32.gguf")


@cache
def hf(dtype: torch.dtype = torch.float64) -> HFLM:
    """`hf` in float64, so that what is found is our rounding alone: its own in float32 differs from CPU to CPU."""
    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=dtype)
    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained(NANO), batch_size=4, softmax_dtype=dtype)


class SeparateHF(HFLM):
    """`hf` as the harness was when EleutherAI scored Pythia: context and continuation each by itself."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return self.tok_encode(context), self.tok_encode(continuation)


def ours(path: Path, **options: Any) -> PythiaLM:
    return PythiaLM(load(path, threads=2, activations="float32", **options))


def logprob(response: Any) -> float:
    return response[0] if isinstance(response, tuple) else response


def apart(a: dict[str, Any], b: dict[str, Any], task: str) -> float:
    """The largest difference in the log-likelihood of an item."""
    pairs = list(zip(items(a, task), items(b, task), strict=True))
    assert [x[0] for x, _ in pairs] == [y[0] for _, y in pairs]
    return max(abs(logprob(x[1]) - logprob(y[1])) for x, y in pairs)


@pytest.fixture(scope="module")
def results(folder: Path, f32: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of all tasks: ours, hf's."""
    return run(ours(f32), folder, *TASKS), run(hf(), folder, *TASKS)


@pytest.mark.parametrize("task", SCORED)
def test_every_score_of_a_task_is_that_of_hf(results: tuple[dict, dict], task: str):
    mine, theirs = results
    assert apart(mine, theirs, task) < NEAR
    for (_, a), (_, b) in zip(items(mine, task), items(theirs, task), strict=True):
        assert not isinstance(a, tuple) or a[1] == b[1]
    for metric, value in theirs["results"][task].items():
        assert mine["results"][task][metric] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5))
    assert set(PUBLISHED) | set(BIAS) < set(SCORED)


@pytest.mark.parametrize("task", ["nq_open", "gsm8k"])
def test_every_text_of_a_task_is_that_of_hf(results: tuple[dict, dict], task: str):
    """gsm8k has five examples in its prompts, most of which are longer than the room left by 256 new tokens."""
    mine, theirs = results
    assert items(mine, task) == items(theirs, task)
    assert mine["results"][task] == theirs["results"][task]


class Shifted(PythiaLM):
    """Scores one token more."""

    def _request(self, *texts: Any) -> Request:
        right = super()._request(*texts)
        return Request(ids=right.ids, start=max(1, right.start - 1))


class Shorter(PythiaLM):
    """Keeps as many tokens as fit, not the one more that is only predicted."""

    def _request(self, *texts: Any) -> Request:
        right = super()._request(*texts)
        n = min(len(right.ids), self.max_length)
        return Request(ids=right.ids[-n:], start=max(1, right.start - (len(right.ids) - n)))


def test_wrong_formulas_are_seen_in_every_task(results: tuple[dict, dict], folder: Path, f32: Path):
    right = load(f32, threads=2, activations="float32")
    for wrong in (ours(f32, gelu="tanh"), ours(f32, cache="f16")):
        found = run(wrong, folder, *SCORED)
        assert min(apart(found, results[1], task) for task in SCORED) > ENOUGH > NEAR
    shifted, shorter = run(Shifted(right), folder, *SCORED), run(Shorter(right), folder, *SCORED)
    # A sentence of crows_pairs begins after the one token that there is to condition on.
    assert min(apart(shifted, results[1], task) for task in SCORED if task != "crows_pairs_english") > 1
    assert min(apart(shorter, results[1], task) for task in ("lambada_openai", "wikitext")) > 1e-2


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=a, idx=0, metadata=("a", i, 1)) for i, a in enumerate(arguments)
    ]


def long_text(lm: Any, n_tokens: int) -> str:
    """Words that are that many tokens, whatever stands before them."""
    text = " self" * n_tokens
    assert len(lm.tok_encode(text)) == n_tokens
    return text


def edges(lm: Any) -> list[tuple[str, str]]:
    """Contexts empty and not, cut and just not cut, continuations as long as the context; some twice."""
    pairs = [
        ("", "import sys"),
        ("import", " sys"),
        ("", "<|endoftext|>import"),
        ("for i in", " range(10):\n"),
        ("x\n", "y"),
    ]
    pairs += [(TEXT[:300], f" {name}") for name in ("self", "None", "import os", "")]
    pairs += [(long_text(lm, n), " in" * 3) for n in (508, 509, 510, 511, 512, 700)]
    pairs += [("a b", long_text(lm, n)) for n in (509, 510, 511, 512)] + [(TEXT[:3000], long_text(lm, 512))]
    return [*pairs, *pairs[:6], ("", long_text(lm, 512)), ("def f", "(x):"), ("import ", "sys"), ("a = 1\n\n", "b")]


def near(found: list[float], expected: list[float]) -> bool:
    return all(abs(a - b) < NEAR + FLOAT32 * abs(b) for a, b in zip(found, expected, strict=True))


def equal(found: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> bool:
    same_greedy = [a[1] for a in found] == [b[1] for b in expected]
    return same_greedy and near([a[0] for a in found], [b[0] for b in expected])


def test_edges_of_the_context_are_those_of_hf(f32: Path):
    asked = instances("loglikelihood", edges(hf()))
    lm = ours(f32)
    found = lm.loglikelihood(asked)
    assert equal(found, hf().loglikelihood(asked, disable_tqdm=True))
    assert lm.loglikelihood(asked[::-1]) == found[::-1]
    assert lm.loglikelihood([]) == []
    # A sum of 500 tokens: what rounding may do to it is far from what the other GELU does.
    assert not equal(ours(f32, gelu="tanh").loglikelihood(asked[-4:-3]), found[-4:-3])


def test_separate_encoding_is_hf_with_each_text_by_itself(f32: Path):
    """Only texts whose border is no border of words tell the two encodings apart."""
    pairs = [
        ("import ", "sys"),
        ("if x =", "= 1:"),
        ("a = 1\n\n", "    b"),
        ("def main", "(argv)"),
        ("x", " = 1"),
        ("", "a"),
    ]
    asked = instances("loglikelihood", pairs)
    separate = SeparateHF(hf().model, tokenizer=hf().tokenizer, batch_size=4).loglikelihood(asked, disable_tqdm=True)
    model = load(f32, threads=2, activations="float32")
    assert equal(PythiaLM(model, encoding="separate").loglikelihood(asked), separate)
    joint = PythiaLM(model).loglikelihood(asked)
    assert equal(joint, hf().loglikelihood(asked, disable_tqdm=True))
    assert [abs(a[0] - b[0]) > 0.1 for a, b in zip(joint, separate, strict=True)] == [True] * 3 + [False] * 3


def test_rolling_windows_are_those_of_hf(f32: Path):
    lm = hf()
    texts = ["", "x", *(long_text(lm, n) for n in (1, 2, 511, 512, 513, 1023, 1024, 1025)), TEXT[:8000], "x"]
    asked = instances("loglikelihood_rolling", [(text,) for text in texts])
    found, expected = ours(f32).loglikelihood_rolling(asked), lm.loglikelihood_rolling(asked, disable_tqdm=True)
    assert len(found) == len(texts)
    assert near(found, expected)
    assert found[0] == 0


def test_greedy_text_is_cut_as_by_hf(f32: Path):
    asked = instances(
        "generate_until",
        [
            ("def main(", {"until": [")"], "max_gen_toks": 30}),
            ("def main(", {"until": ")", "max_gen_toks": 30}),
            ("import os", {"until": ["\n\n", "import sys"], "max_new_tokens": 40, "do_sample": False}),
            ("for i in", {"until": [":", "range"], "max_gen_toks": 12, "temperature": 0.0}),
            ("class A", {"max_gen_toks": 20, "num_beams": 1}),
            ("return self", {"until": ["no such text"], "max_gen_toks": 1}),
            (TEXT[:4000], {"until": ["\n"], "max_gen_toks": 24}),
            ("def main(", {"until": ["n", "f", "func"], "max_gen_toks": 30}),
        ],
    )
    found = ours(f32).generate_until(asked)
    assert found == hf().generate_until(asked, disable_tqdm=True)
    assert len(set(found)) > 5


def test_sampled_text_comes_again_with_the_seed_and_no_two_are_the_same(f32: Path):
    model = load(f32, threads=2)
    options = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "max_gen_toks": 20, "until": []}
    asked = instances("generate_until", [("def ", options)] * 4)
    first = PythiaLM(model).generate_until(asked)
    assert PythiaLM(model).generate_until(asked) == first
    assert len(set(first)) == 4
    assert PythiaLM(model, seed=7).generate_until(asked) != first
    only = instances("generate_until", [("def ", options | {"top_k": 1}), ("def ", {"max_gen_toks": 20, "until": []})])
    sampled, greedy = PythiaLM(model).generate_until(only)
    assert sampled == greedy


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 4}, "no beam search"),
        ({"repetition_penalty": 1.1}, "tasks cannot ask for repetition_penalty"),
        ({"do_sample": True}, "a temperature above 0"),
        ({"max_gen_toks": 512}, "leaves no room"),
        ({"top_p": 2, "temperature": 1.0}, "top_p"),
    ],
)
def test_what_text_cannot_have_is_refused(f32: Path, options: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        ours(f32).generate_until(instances("generate_until", [("a", {"until": []} | options)]))


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("a", ""), "an empty continuation"),
        (("", ""), "an empty continuation"),
        (("a", "b"), "becomes part of the context's last token"),
        (("a", " self" * 513), "a continuation of 513 tokens"),
    ],
)
def test_what_has_no_score_is_an_error_and_no_missing_result(f32: Path, pair: tuple[str, str], said: str):
    """`hf` refuses the same, by assertions."""
    asked = instances("loglikelihood", [("import", " sys"), pair])
    with pytest.raises(UsageError, match=said):
        ours(f32).loglikelihood(asked)
    with pytest.raises((AssertionError, IndexError)):
        hf().loglikelihood(asked, disable_tqdm=True)


def test_white_space_alone_is_an_empty_context(f32: Path):
    lm = ours(f32)
    spaces, none = lm.loglikelihood(instances("loglikelihood", [("\n", "import"), ("", "\nimport")]))
    assert spaces == none


def test_a_model_that_gives_no_number_is_an_error(tmp_path: Path, f32: Path):
    data = bytearray(f32.read_bytes())
    data[-64:-60] = np.float32(np.nan).tobytes()
    broken = tmp_path / "nano.F32.gguf"
    broken.write_bytes(data)
    with pytest.raises(ModelFileError, match="weight 240 of row 0 is infinity or NaN"):
        ours(broken).loglikelihood(instances("loglikelihood", [("import", " sys")]))


@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_results_name_the_activations_that_were_used(activations: str, f32: Path):
    """F32 weights take float32 instead of int8; bf16x3 is 17 bits of 24, and bfloat16's 8 are far from it."""
    if is_refused(f32, activations):
        return
    lm = PythiaLM(load(f32, threads=2, activations=activations))
    used = "bf16x3" if activations == "bf16x3" else "float32"
    assert lm.get_model_info()["pythia_gguf"]["activations"] == used
    asked = instances("loglikelihood", [(TEXT[i : i + 200], TEXT[i + 200 : i + 240]) for i in range(0, 4000, 400)])
    exact = np.array([logprob for logprob, _ in hf().loglikelihood(asked)])
    apart = np.abs(np.array([logprob for logprob, _ in lm.loglikelihood(asked)]) - exact).max()
    assert apart <= (BF16X3_NEAR if used == "bf16x3" else NEAR)
    coarse = np.array([logprob for logprob, _ in hf(torch.bfloat16).loglikelihood(asked)])
    assert np.abs(coarse - exact).max() > 100 * BF16X3_NEAR


def test_the_harness_finds_it_by_name(folder: Path, f32: Path):
    assert get_model("pythia-gguf") is PythiaLM
    options = {"tasks": ["sciq"], "bootstrap_iters": 0, "limit": 3, "log_samples": False}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    by_name = simple_evaluate(
        model="pythia-gguf", model_args=f"model={f32},threads=2,encoding=separate", task_manager=manager, **options
    )
    instance = PythiaLM(load(f32, threads=1), encoding="separate")
    by_instance = simple_evaluate(model=instance, task_manager=manager, **options)
    assert by_name["results"] == by_instance["results"]
    facts = by_name["config"]["pythia_gguf"]
    assert facts == by_instance["config"]["pythia_gguf"]
    told = {"file": "nano.F32.gguf", "quant": "F32", "gelu": "erf", "activations": "float32", "kv": "f32"}
    assert facts.items() >= (told | {"encoding": "separate"}).items()
    assert by_name["config"]["model_num_parameters"] == 6_836_224


def test_wrong_options_of_the_model():
    with pytest.raises(UsageError, match="encoding must be one of joint, separate, got 'jont'. Did you mean joint"):
        PythiaLM(nano_files()["Q4_0"], encoding="jont")
    with pytest.raises(UsageError, match="device must be cpu, got 'cuda'"):
        PythiaLM(nano_files()["Q4_0"], device="cuda")
    with pytest.raises(TypeError, match="thread"):
        PythiaLM(nano_files()["Q4_0"], thread=2)
    with pytest.raises(TypeError, match="options are for a model that is loaded here"):
        PythiaLM(load(nano_files()["Q4_0"], threads=2), gelu="erf")


def test_one_task_by_itself_is_one():
    with pytest.raises(UsageError, match="'abc'"):
        load_tasks("abc")
