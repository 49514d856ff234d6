"""Texts written side by side against the same texts one by one: requests of `generate_until`, in one run.

    python bench/bench_batch.py [--requests 200] [--threads 2] [--quant Q4_K_M]     about 10 minutes
    python bench/bench_batch.py --save          also writes bench/results/batch.csv

A random model of the shape of Pythia 410M; prompts of 32 tokens, 96 tokens written. The first half of the requests runs
one by one, then all of them in a batch, then the second half one by one. The texts must be the same. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench"), str(ROOT / "scripts")]

from bench_encoders import cpu  # noqa: E402
from bench_engine import make_files  # noqa: E402
from bench_press import write_table  # noqa: E402

from pythia_gguf import load  # noqa: E402
from pythia_gguf.engine.batch import write_all  # noqa: E402
from pythia_gguf.engine.model import Model  # noqa: E402
from pythia_gguf.engine.writing import Writing, begin_writing, options_of  # noqa: E402

N_PROMPT, N_WRITTEN = 32, 96


def main() -> None:
    """Measure, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quant", default="Q4_K_M")
    parser.add_argument("--save", action="store_true", help="write bench/results/batch.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = load(make_files(Path(work), [options.quant])[options.quant], threads=options.threads)
        row = measured(model, options.requests)
    row = {"quant": options.quant, **row}
    print(f"{cpu()}, {options.threads} threads\n" + ", ".join(f"{name} {value}" for name, value in row.items()))
    if options.save:
        write_table("batch.csv", [row], options.threads, key=("cpu", "threads"))
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "batch": row}))


def measured(model: Model, n: int) -> dict[str, float]:
    """Seconds of both ways, and their ratio."""
    write_all(model, requests(model, 2))  # kernels are there, pages too
    alone = requests(model, n)
    side_by_side = requests(model, n)
    alone_s = one_by_one(model, alone[: n // 2])
    started = time.perf_counter()
    write_all(model, side_by_side)
    batch_s = time.perf_counter() - started
    alone_s += one_by_one(model, alone[n // 2 :])
    assert [w.tokens for w in alone] == [w.tokens for w in side_by_side], "texts differ"
    return {
        "requests": n,
        "one_by_one_s": round(alone_s, 2),
        "batch_s": round(batch_s, 2),
        "ratio": round(alone_s / batch_s, 2),
        "batch_tokens_per_s": round(n * N_WRITTEN / batch_s, 1),
    }


def one_by_one(model: Model, writings: list[Writing]) -> float:
    """Seconds of texts that each have the model for themselves."""
    started = time.perf_counter()
    for writing in writings:
        write_all(model, [writing])
    return time.perf_counter() - started


def requests(model: Model, n: int) -> list[Writing]:
    """Random prompts; none of the texts ends before its last token."""
    random = np.random.default_rng(0)
    ids = random.integers(0, model.n_vocab, (n, N_PROMPT)).tolist()
    how = [options_of({"max_tokens": N_WRITTEN, "seed": i, "top_k": 50, "temperature": 1.0}) for i in range(n)]
    return [begin_writing(model, prompt, *options, frozenset()) for prompt, options in zip(ids, how, strict=True)]


if __name__ == "__main__":
    main()
