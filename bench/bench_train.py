"""Training on CPUs beside transformers: tokens a second of one update, both in one process, taking turns.

    python bench/bench_train.py [--turns 5] [--rows 8] [--context 512] [--compile] [--save]    about 5 minutes

The shape of pythia-70m, float32, the same rows, threads and updates: ours is `train.update.Trainer`, theirs
`GPTNeoXForCausalLM` with scaled_dot_product_attention and torch's fused AdamW, eager and by torch.compile (--compile),
which needs a compiler for C++. The limit beside it is what this machine reaches in a plain product of float32 matrices
over the operations of a step, `Recipe.token_operations`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402

from pythia_gguf.arch import ARCHITECTURES  # noqa: E402
from pythia_gguf.hub.suite import MODELS  # noqa: E402
from pythia_gguf.train.model import Transformer, init_weights  # noqa: E402
from pythia_gguf.train.recipe import Recipe, pythia_recipe  # noqa: E402
from pythia_gguf.train.update import Trainer  # noqa: E402


def recipe(rows: int, context: int) -> Recipe:
    """The 70M shape in float32."""
    made = pythia_recipe(MODELS["pythia-70m"])
    values = {f: getattr(made, f) for f in Recipe.__dataclass_fields__}
    return Recipe(**values | {"batch": rows, "context": context, "precision": "float32"})


def ours(made: Recipe, batch: torch.Tensor) -> Callable[[], float]:
    """An update of ours, with everything that a training does but its log."""
    model = Transformer(made)
    init_weights(model, torch.Generator().manual_seed(1))
    trainer = Trainer(made, model, micro=made.batch)
    trainer.n_updates = 1000
    return lambda: trainer.update(batch).loss


def theirs(made: Recipe, batch: torch.Tensor, *, compiled: bool) -> Callable[[], float]:
    """An update of transformers' model."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    keys = ARCHITECTURES["gptneox"].hf_keys(made.config()) | {"hidden_act": "gelu_new"}
    config = GPTNeoXConfig(**keys, tie_word_embeddings=False, attn_implementation="sdpa", use_cache=False)
    torch.manual_seed(1)
    model = GPTNeoXForCausalLM(config).train(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if compiled else model
    inputs, labels = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def step() -> float:
        # shift_labels: the targets as they are, so that both predict the same tokens.
        loss = run(input_ids=inputs, labels=inputs, shift_labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


def peak() -> float:
    """Operations a second of a product of 2,048 x 2,048 float32 matrices."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return float(2 * 2048**3 / min(times))


def main() -> None:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    made = recipe(given.rows, given.context)
    batch = torch.randint(0, 50277, (given.rows, given.context + 1), generator=torch.Generator().manual_seed(2))
    steps = {"ours": ours(made, batch), "transformers": theirs(made, batch, compiled=False)}
    if given.compile:
        steps["transformers compiled"] = theirs(made, batch, compiled=True)
    losses = {name: step() for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    for turn in range(given.turns):
        peaks.append(peak())
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
        print(f"turn {turn + 1}", {name: round(t[-1], 2) for name, t in times.items()}, flush=True)
    n_tokens = given.rows * given.context
    seconds = {name: statistics.median(t) for name, t in times.items()}
    best = min(s for name, s in seconds.items() if name != "ours")
    ratios = [min(t[i] for name, t in times.items() if name != "ours") / times["ours"][i] for i in range(given.turns)]
    row = {
        "shape": "pythia-70m",
        "rows": given.rows,
        "context": given.context,
        "ours_tokens_per_s": round(n_tokens / seconds["ours"], 1),
        **{
            f"{name.replace(' ', '_')}_tokens_per_s": round(n_tokens / s, 1)
            for name, s in seconds.items()
            if name != "ours"
        },
        "ratio": round(best / seconds["ours"], 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "of_limit": round(n_tokens * made.token_operations / seconds["ours"] / statistics.median(peaks), 3),
        "peak_gflop_per_s": round(statistics.median(peaks) / 1e9, 1),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(row | {"first_losses": losses}))
    if given.save:
        with open(ROOT / "bench" / "results" / "train_cpu.csv", "w", encoding="utf-8", newline="") as f:
            where = {"cpu": cpu(), "date": str(date.today()), "torch": torch.__version__}
            writer = csv.DictWriter(f, [*row, *where], lineterminator="\n")
            writer.writeheader()
            writer.writerow(row | where)


if __name__ == "__main__":
    main()
