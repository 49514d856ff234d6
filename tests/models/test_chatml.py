"""A ChatML fine-tune of the sample all the way: quantize, generate, score, eval, measure, card, publish, pull.

Its numbers are those of transformers and of lm_eval's `hf` on the checkpoint, in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import snapshot_download
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from cli.command_lines import write_task
from engine.nano import HELDOUT
from hub.loopback import LoopbackHub
from tokenizer.special_folders import write_folder

pytestmark = pytest.mark.slow

# Nats; F16 weights are exact, keys and values are kept in float32 here. Another token before an empty text is 1 away.
NEAR = 1e-4
PLAIN = ("--activations", "float32", "--kv", "f32")
PROMPT = "<|im_start|>user\nsort a list<|im_end|>\n<|im_start|>assistant\n"
README = "---\nlicense: apache-2.0\nlanguage: en\nbase_model: EleutherAI/pythia-14m\n---\n\n# Chat\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("chatml") / "nano-chat", "chatml")
    (folder / "README.md").write_text(README, "utf-8")
    return folder


@pytest.fixture(scope="module")
def hf(folder: Path) -> HFLM:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return HFLM(model, tokenizer=tokenizer, batch_size=1, softmax_dtype=torch.float64, logits_cache=False)


def perplexity(hf: HFLM, text: str, context: int, n_windows: int) -> float:
    """llama-perplexity's, in float64: of each window the second half."""
    ids = hf.tokenizer.encode(text)
    losses = []
    for at in range(0, context * n_windows, context):
        window = torch.tensor([ids[at : at + context]])
        with torch.no_grad():
            logprobs = hf.model(window).logits[0].log_softmax(-1)
        losses += [-float(logprobs[i, window[0, i + 1]]) for i in range(context // 2, context - 1)]
    return math.exp(math.fsum(losses) / len(losses))


Run = Callable[..., str]


def check_texts(done: Run, f16: Path, hf: HFLM) -> None:
    for prompt in ("", PROMPT, "def main("):
        line = ["generate", f16, prompt, "--max-tokens", "32", "--temperature", "0", *PLAIN, "--output-format", "json"]
        told = json.loads(done(*line))
        ids = hf.tokenizer.encode(prompt) or [hf.tokenizer.bos_token_id]
        with torch.no_grad():
            written = hf.model.generate(torch.tensor([ids]), max_new_tokens=32, do_sample=False)[0, len(ids) :].tolist()
        # transformers goes on at <|endoftext|>, which llama.cpp and we know for an end; its last token is the end.
        ends = [i for i, token in enumerate(written) if token in (hf.tokenizer.eos_token_id, 0)]
        assert told["tokens"] == written[: ends[0] if ends else None]
        assert told["text"] == hf.tokenizer.decode(told["tokens"], skip_special_tokens=True)


def check_scores(done: Run, f16: Path, hf: HFLM) -> None:
    for pair in (("", "import os"), (PROMPT, "x = sorted(y)"), ("<|im_start|>", "user")):
        line = ["score", f16, "--prompt", pair[0], "--continuation", pair[1], *PLAIN, "--output-format", "json"]
        told = json.loads(done(*line))
        (theirs,) = hf.loglikelihood([Instance("loglikelihood", {}, pair, 0, ("task", 0, 1))], disable_tqdm=True)
        assert told["scores"][0]["logprob"] == pytest.approx(theirs[0], abs=NEAR)


def check_task(done: Run, f16: Path, hf: HFLM, tasks: Path) -> None:
    write_task(tasks)
    results = f16.parent / "results.json"
    done("eval", f16, "--tasks", "two_words", "--include-path", tasks, "-o", results, *PLAIN)
    task = TaskManager(include_path=str(tasks), include_defaults=False).load(["two_words"])
    theirs = evaluate(hf, task, bootstrap_iters=0)["results"]["two_words"]
    assert json.loads(results.read_text())["results"]["two_words"]["acc,none"] == theirs["acc,none"]


def check_measured(done: Run, f16: Path, hf: HFLM) -> None:
    report = f16.parent / "report.json"
    text = ("--text", HELDOUT, "--context", "128", "--chunks", "4")
    done("measure", f16.parent, *text, "--activations", "float32", "-o", report)
    rows = {row["file"]: row for row in json.loads(report.read_text())["files"]}
    # Keys and values are float16 here.
    assert rows[f16.name]["ppl"] == pytest.approx(perplexity(hf, HELDOUT.read_text("utf-8"), 128, 4), rel=1e-3)


def test_a_chat_model_goes_the_whole_way(folder: Path, hf: HFLM, hub: LoopbackHub, pythia: Any, tmp_path: Path):
    def done(*line: str | Path) -> str:
        code, out, err = pythia(*line)
        assert code == 0, err
        return str(out)

    made = tmp_path / "made"
    done("quantize", folder, "--out", made, "--quants", "Q8_0,Q4_K_M", "--keep-f16", "--quantized-by", "me")
    f16 = made / "nano-chat.F16.gguf"
    check_texts(done, f16, hf)
    check_scores(done, f16, hf)
    check_task(done, f16, hf, tmp_path / "tasks")
    check_measured(done, f16, hf)
    card = made / "README.md"
    card.write_text(card.read_text("utf-8").replace("---\n", "---\nbase_model: me/nano-chat\n", 1), "utf-8")
    done("card", made)
    done("publish", made, "--repo", "me/nano-chat-GGUF")
    done("verify", snapshot_download("me/nano-chat-GGUF", local_dir=tmp_path / "back"))
    # Then by its name: one file comes, and what the manifest says of its special tokens counts.
    done("pull", "me/nano-chat-GGUF:Q8_0")
    told = []
    for model in (made / "nano-chat.Q8_0.gguf", "me/nano-chat-GGUF:Q8_0"):
        line = ["generate", model, PROMPT, "--max-tokens", "16", "--temperature", "0", "--output-format", "json"]
        told.append(json.loads(done(*line))["tokens"])
    assert told[0] == told[1]
