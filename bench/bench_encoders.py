"""Speed of each encoder against llama.cpp's, one thread, in one run: the two take turns, medians are compared.

    python bench/bench_encoders.py            prints the table, the last line is one JSON object
    python bench/bench_encoders.py --save     also writes bench/results/encoders.csv, its rows of this kind of CPU
    python bench/bench_encoders.py --weighted --save    with an importance matrix; encoders_weighted.csv

llama.cpp's side is `ggml_quantize_chunk`, twice: of llama-cpp-python 0.3.36, whose ggml-base is the stock build (SSE2,
no FMA), and of the same C built with -march=native -ffp-contract=off. With NUMBA_CPU_NAME=haswell and
NUMBA_CPU_FEATURES="+avx2,+fma,+f16c" our encoders are compiled for such a CPU, and so is that C.
"""

from __future__ import annotations

import csv
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from native_llama import native_library  # noqa: E402

import oracle  # noqa: E402
from kernels.rows import ROW, gaussian, importances  # noqa: E402
from pythia_gguf.formats import FORMATS  # noqa: E402
from pythia_gguf.kernels.cpu_kind import cpu_kind  # noqa: E402
from pythia_gguf.kernels.encode import ENCODABLE, compile_encoder, encode  # noqa: E402

TURNS = 7
LEAST_S = 0.15


def main() -> None:
    """Measure every format."""
    weights = gaussian(0, 4096).reshape(-1)
    native = native_library(compiled_for() if "NUMBA_CPU_NAME" in os.environ else "native")
    importance = importances(5)["squares"] if "--weighted" in sys.argv else None
    rows = []
    print(f"{'format':8} {'ours':>14} {'llama.cpp':>14} {'ratio':>7} {'spread':>13} {'ratio to native':>15}")
    for name in ENCODABLE:
        rows.append(measure(name, weights, native, importance))
        r = rows[-1]
        print(
            f"{name:8} {r['ours_mweights_per_s']:10.1f} M/s {r['llama_cpp_mweights_per_s']:10.1f} M/s"
            f" {r['ratio']:7.2f} {r['ratio_min']:6.2f}-{r['ratio_max']:.2f} {r['ratio_native']:15.2f}"
        )
    if "--save" in sys.argv:
        save(rows, "encoders.csv" if importance is None else "encoders_weighted.csv")
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "encoders": rows}))


def measure(
    name: str, weights: np.ndarray, native: ctypes.CDLL, importance: np.ndarray | None
) -> dict[str, float | str]:
    """Take turns; the ratio is that of the two times of one turn."""
    fmt = FORMATS[name]
    compile_encoder(name, importance is not None)
    out = np.empty(fmt.row_bytes(weights.size), np.uint8)
    part = weights[: weights.size // 16] if name.startswith("IQ4") else weights[: weights.size // 4]
    chunk = (fmt.ggml_id, part, ROW, fmt.block_bytes, fmt.block_weights)
    ours_s, theirs_s, native_s = [], [], []
    for _ in range(TURNS):
        ours_s.append(timed(lambda: encode(name, weights, out, importance)) / weights.size)
        theirs_s.append(timed(lambda: oracle.encode(*chunk, importance=importance)) / part.size)
        native_s.append(timed(lambda: oracle.encode(*chunk, library=native, importance=importance)) / part.size)
    ratios = sorted(t / o for t, o in zip(theirs_s, ours_s, strict=True))
    return {
        "format": name,
        "ours_mweights_per_s": round(1e-6 / statistics.median(ours_s), 1),
        "llama_cpp_mweights_per_s": round(1e-6 / statistics.median(theirs_s), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[0], 2),
        "ratio_max": round(ratios[-1], 2),
        "native_mweights_per_s": round(1e-6 / statistics.median(native_s), 1),
        "ratio_native": round(statistics.median(t / o for t, o in zip(native_s, ours_s, strict=True)), 2),
    }


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, averaged over enough calls to be measurable."""
    n, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < LEAST_S:
        run()
        n += 1
    return took / n


def compiled_for() -> str:
    """LLVM's name of the kind of CPU that encoders are compiled for."""
    return cpu_kind().name


def cpu() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, LLVM {llvmlite.binding.get_host_cpu_name()}"


def save(rows: list[dict[str, float | str]], file: str) -> None:
    """One row a format, with machine, date and versions; rows of other kinds of CPU stay."""
    where = {
        "compiled_for": compiled_for(),
        "cpu": cpu(),
        "date": str(date.today()),
        "numba": numba.__version__,
        "llama_cpp": "0c1e57098",
    }
    path = ROOT / "bench" / "results" / file
    with open(path, encoding="utf-8", newline="") as f:
        others = [row for row in csv.DictReader(f) if row["compiled_for"] != where["compiled_for"]]
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, [*rows[0], *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *({**row, **where} for row in rows)])


if __name__ == "__main__":
    main()
