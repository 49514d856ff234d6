"""Log-likelihoods through lm-evaluation-harness: ours against its model `hf`, on one random 410M-shaped model.

    python bench/bench_lm_eval.py [--turns 2] [--save]                 about half an hour
    python bench/bench_lm_eval.py --pair F16 --turns 3 --save          measures and replaces one row of the table
    python bench/bench_lm_eval.py --layers 2 --requests 16 --turns 1   a quick look

200 requests, seeded: contexts of 20 to 400 tokens, continuations of 1 to 20; half of them are the four choices of a
question and share its context. Our F32 against float32 of torch and our F16 against its bfloat16, on processors with
AMX with `--activations bf16x3` too; Q8_0 stands beside them as another precision. `hf` is taken at its best batch size,
found on a quarter of the requests in the first turn; ours makes its own batches. All take turns, with the same threads;
loading is not counted. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402
from bench_engine import random_model  # noqa: E402
from bench_press import N_TOKENS, write_table  # noqa: E402

from press.toy_gguf import widened  # noqa: E402
from pythia_gguf import load, quantize  # noqa: E402
from pythia_gguf.evals.harness import PythiaLM  # noqa: E402
from pythia_gguf.export.folder import export  # noqa: E402
from pythia_gguf.kernels.matmul import known_activations  # noqa: E402

Requests = list[tuple[tuple[str, str], list[int], list[int]]]
Score = Callable[..., list[tuple[float, bool]]]
N_CHOICES = 4


class Pair(NamedTuple):
    """What is set against what, and how their precisions compare."""

    quant: str
    activations: str
    theirs: str
    precision: str


# By the name of ours. `hf` has nothing like Q8_0.
PAIRS = {
    "F32": Pair("F32", "float32", "float32", "the same"),
    "F16": Pair("F16", "float32", "bfloat16", "16 bits both, ours with float32 activations"),
    "F16 bf16x3": Pair("F16", "bf16x3", "bfloat16", "16 bits both, ours with 17 of activations"),
    "Q8_0": Pair("Q8_0", "int8", "float32", "another"),
}


def main() -> None:
    """Measure, print, and save when asked to."""
    options = parse()
    torch.set_num_threads(options.threads)
    requests = make_requests(options.requests)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        files, folder = make_files(Path(work), options.layers)
        seen, best = measured(files, folder, requests, options)
    n_tokens = sum(len(context) + len(continuation) - 1 for _, context, continuation in requests)
    rows = [row(name, seen, best, len(requests), n_tokens) for name in seen if name in PAIRS]
    for r in rows:
        print(r)
    if options.save:
        versions = {name: metadata.version(name) for name in ("lm_eval", "torch", "transformers")}
        write_table("lm_eval.csv", [r | versions for r in rows], options.threads, key=("ours", "cpu"))
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "rows": rows}))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--pair", choices=PAIRS, help="only this one of ours and what it is set against")
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a quick look")
    parser.add_argument("--batch-sizes", default="1,4,16", help="of hf, the best of which counts")
    parser.add_argument("--work", help="folder for 5 GB of files; default the system's")
    parser.add_argument("--save", action="store_true", help="write bench/results/lm_eval.csv")
    return parser.parse_args()


def make_files(work: Path, layers: int | None) -> tuple[dict[str, Path], Path]:
    """Quant -> file of a seeded random model, and the same as a Hugging Face folder."""
    source = random_model(work, layers)
    (q8_0,) = quantize(source, work / "out", quants=["Q8_0"]).files
    folder = export(source, work / "hf", dtype="float16").folder
    files = {"F32": widened(source, work / "random.F32.gguf"), "F16": source, "Q8_0": q8_0.path}
    os.sync()  # gigabytes that are still being written would slow down what is measured first
    return files, folder


def make_requests(n: int) -> Requests:
    """As the harness gives them to a model: texts (of no use here), tokens of the context and of the continuation."""
    numbers = np.random.default_rng(41)
    found: Requests = []
    while len(found) < n:
        context = numbers.integers(2, N_TOKENS, numbers.integers(20, 401)).tolist()
        for _ in range(N_CHOICES if len(found) % (2 * N_CHOICES) == 0 else 1):
            continuation = numbers.integers(2, N_TOKENS, numbers.integers(1, 21)).tolist()
            found.append((("", ""), context, continuation))
    return found[:n]


def ours(path: Path, activations: str, threads: int) -> dict[int, Score]:
    """By batch size, of which there is none: 0."""
    return {0: PythiaLM(load(path, threads=threads, activations=activations))._loglikelihood_tokens}


def theirs(folder: Path, dtype: str, sizes: list[int]) -> dict[int, Score]:
    """By batch size."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return {n: HFLM(model, tokenizer=tokenizer, batch_size=n)._loglikelihood_tokens for n in sizes}


def measured(
    files: dict[str, Path], folder: Path, requests: Requests, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of every side in every turn, and the batch size that was best in the first."""
    chosen = [options.pair] if options.pair else [n for n, p in PAIRS.items() if p.activations in known_activations()]
    seen: dict[str, list[float]] = {name: [] for n in chosen for name in (n, PAIRS[n].theirs)}
    best: dict[str, int] = {}
    for turn in range(options.turns):
        for name in seen:
            sizes = [best[name]] if name in best else [int(n) for n in options.batch_sizes.split(",")]
            if name in PAIRS:
                scores = ours(files[PAIRS[name].quant], PAIRS[name].activations, options.threads)
            else:
                scores = theirs(folder, name, sizes)
            if name not in best:
                quick = {size: seconds(score, requests[::4]) for size, score in scores.items()}
                best[name] = min(quick, key=quick.__getitem__)
                print(f"{name}: a quarter of the requests, seconds by batch size: {quick}", flush=True)
            seen[name].append(seconds(scores[best[name]], requests))
            print(f"turn {turn + 1} {name:12} {seen[name][-1]:.2f} s, batch size {best[name]}", flush=True)
            del scores
            gc.collect()
    return seen, best


def seconds(score: Score, requests: Requests) -> float:
    """Of all requests, after a few that warm up."""
    score(requests[:4], disable_tqdm=True)
    started = time.perf_counter()
    found = score(requests, disable_tqdm=True)
    took = time.perf_counter() - started
    assert len(found) == len(requests)
    return took


def row(
    name: str, seen: dict[str, list[float]], best: dict[str, int], n_requests: int, n_tokens: int
) -> dict[str, float | str]:
    """Medians over turns; ratios are those of one turn."""
    _, _, against, precision = PAIRS[name]
    ratios = sorted(b / a for a, b in zip(seen[name], seen[against], strict=True))
    return {
        "ours": name,
        "hf": against,
        "precision": precision,
        "requests": n_requests,
        "tokens": n_tokens,
        "ours_s": round(statistics.median(seen[name]), 3),
        "hf_s": round(statistics.median(seen[against]), 3),
        "hf_batch_size": best[against],
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[0], 2),
        "ratio_max": round(ratios[-1], 2),
    }


if __name__ == "__main__":
    main()
