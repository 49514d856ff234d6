"""Time to choose a token of 50,304 with OpenAI's defaults, against sorting all of them as was done before.

    python bench/bench_sampling.py            prints the table, the last line is one JSON object
    python bench/bench_sampling.py --save     also writes bench/results/sampling.csv

Temperature 1, no top_k, top_p or min_p; processor time of one thread. Logits are those of p = c / rank in random order,
nearly as a trained model has them, and flat ones, half of them equal; each without log-probabilities and with the 5
most likely. Old and new take turns on the same random numbers, and choose the same tokens. All of it is done twice: as
NumPy runs here, and as it runs on a processor that has AVX2 and no more (NPY_DISABLE_CPU_FEATURES,
NUMBA_CPU_NAME).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402
from bench_press import write_table  # noqa: E402

from engine import full_sort  # noqa: E402
from pythia_gguf.engine.logprobs import Logprobs  # noqa: E402
from pythia_gguf.engine.sampling import Sampler, Sampling, room_for  # noqa: E402

N_VOCAB = 50304
TURNS = 301
DEFAULTS = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
# What takes AVX-512 from NumPy and from kernels.
VARIABLE = "NPY_DISABLE_CPU_FEATURES"
AS_AVX2 = {
    VARIABLE: "X86_V4 AVX512_ICL AVX512_SPR",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+f16c",
}

Row = dict[str, float | str]


def main() -> None:
    """Measure here and as with AVX2, print, and save when asked to."""
    if VARIABLE in os.environ:
        print(json.dumps(measured("NumPy without AVX-512")))
        return
    rows = measured("NumPy as it is")
    again = subprocess.run(
        [sys.executable, __file__], env=os.environ | AS_AVX2, check=True, capture_output=True, text=True
    )
    rows += json.loads(again.stdout)
    print(f"{cpu()}\n{'':22} {'logits':6} {'logprobs':8} {'old':>9} {'new':>9} {'ratio':>7} {'spread':>13}")
    for r in rows:
        print(
            f"{r['numpy']:22} {r['logits']:6} {r['logprobs']:8} {r['old_ms']:6.3f} ms {r['new_ms']:6.3f} ms"
            f" {r['ratio']:7.2f} {r['ratio_min']:6.2f}-{r['ratio_max']:.2f}"
        )
    if "--save" in sys.argv:
        write_table("sampling.csv", rows, 1, key=("cpu",))
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "sampling": rows}))


def measured(how: str) -> list[Row]:
    """One row for each kind of logits, with and without log-probabilities."""
    random = np.random.default_rng(0)
    flat = np.zeros(N_VOCAB, np.float32)
    flat[::2] = random.normal(0, 0.01, flat[::2].size)
    kinds = {"1/rank": random.permutation(-np.log(np.arange(1, N_VOCAB + 1))).astype(np.float32), "flat": flat}
    return [
        {"numpy": how, "logits": kind, "logprobs": n_top, **taking_turns(logits, n_top)}
        for kind, logits in kinds.items()
        for n_top in (0, 5)
    ]


def taking_turns(logits: np.ndarray, n_top: int) -> Row:
    """Medians of both; the ratio is that of the two times of one turn, its spread that of the middle half."""
    sampler, random = Sampler(DEFAULTS), full_sort.generator(DEFAULTS)
    room = room_for(N_VOCAB)
    old_s, new_s = [], []
    for _ in range(TURNS):
        drawn = random.random()
        started = time.thread_time()
        old = full_sort.choose(DEFAULTS, logits, drawn)
        old_logprobs = full_sort.logprobs(logits, [old], n_top)[0] if n_top else None
        between = time.thread_time()
        known = Logprobs(logits) if n_top else None
        new = sampler.choose(logits, [], None if known is None else known.odds_sum, room)
        new_logprobs = None if known is None else known.of(new, n_top)
        new_s.append(time.thread_time() - between)
        old_s.append(between - started)
        assert new == old
        if new_logprobs is not None:
            assert [i for i, _ in new_logprobs.top] == [i for i, _ in old_logprobs[1]]
            assert abs(new_logprobs.logprob - old_logprobs[0]) < 1e-13
    ratios = sorted(o / n for o, n in zip(old_s, new_s, strict=True))
    return {
        "old_ms": round(1e3 * statistics.median(old_s), 3),
        "new_ms": round(1e3 * statistics.median(new_s), 3),
        "new_ms_mean": round(1e3 * statistics.fmean(new_s), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[TURNS // 4], 2),
        "ratio_max": round(ratios[3 * TURNS // 4], 2),
    }


if __name__ == "__main__":
    main()
