"""The press against llama.cpp: the files of one menu from one 410M-shaped float16 checkpoint, in one run, taking turns.

    python bench/bench_press.py [--turns 3] [--save]     three turns take about a quarter of an hour
    python bench/bench_press.py --turns 1 --layers 2     a quick look at a small model
    python bench/bench_press.py --compiled-for haswell --rows "16 distinct files" --save

llama.cpp's side is `llama_model_quantize` of llama-cpp-python 0.3.36 with the same number of threads, file by file as
its tool does it; its ggml-base is the stock build: SSE2, no FMA. Ours is the `pythia` command: it also writes hashes,
manifest and card, and syncs every file to disk. Another kind of CPU is one that ours is compiled for. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numba
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import compiled_for, cpu  # noqa: E402

import oracle  # noqa: E402
from cpu_kinds import RUNNABLE, environment  # noqa: E402
from press.toy_gguf import model_metadata, write_gguf  # noqa: E402
from pythia_gguf.plan.quants import QUANTS  # noqa: E402

DISTINCT = [q.name for q in QUANTS.values() if q.alias_of is None]
SHAPES = {
    "410m": {"hidden": 1024, "n_layers": 24, "n_heads": 16, "n_ffn": 4096},
    "1.4b": {"hidden": 2048, "n_layers": 24, "n_heads": 16, "n_ffn": 8192},
}
N_TOKENS = 50304
# The `pythia` command, which at its end tells the largest memory of its own process in KiB. (What the parent is told
# about a child counts the moment before exec, in which the child still was the parent.)
COMMAND = """
import sys
sys.argv[0] = "pythia"
from pythia_gguf.cli.main import main
try:
    main()
finally:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
# row -> quants; the third starts with an empty kernel cache
ROWS = {
    "16 distinct files": ",".join(DISTINCT),
    "all 19 names": "all",
    "all 19 names, first run after installation": "all",
    "Q4_K_M alone": "Q4_K_M",
}


def main() -> None:
    """Measure, print, and save when asked to."""
    options = parse()
    if options.compiled_for:
        os.environ |= environment(options.compiled_for)
    stages, rss = {}, {}
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        source = checkpoint(Path(work), "410m", options.layers)
        turns = [turn(source, Path(work), options.rows, options.threads) for _ in range(options.turns)]
        rss = {f"410m, {name}": n for name, n in turns[0]["rss"].items()}
        if not options.compiled_for:
            stages = in_stages(source, Path(work) / "stages", options.threads)
        source.unlink()
        if options.large:
            large = checkpoint(Path(work), "1.4b", None)
            rss["1.4b"] = ours(large, Path(work) / "out", "all", options.threads)[1]
    rows = [{"compiled_for": options.compiled_for or compiled_for()} | row(name, turns) for name in options.rows]
    show(rows, stages, rss, options.threads)
    if options.save:
        save(rows, stages, rss, options.threads)
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "rows": rows, "stages": stages, "peak_rss_bytes": rss}))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, help="fewer layers than 24, for a quick look")
    parser.add_argument("--rows", action="append", choices=ROWS, help="some rows of the table; default all")
    parser.add_argument("--compiled-for", choices=RUNNABLE, help="kind of CPU")
    parser.add_argument("--work", help="folder for 10 GB of files; default the system's")
    parser.add_argument("--large", action="store_true", help="also the memory of a 1.4B-shaped run (20 GB of disk)")
    parser.add_argument("--save", action="store_true", help="write bench/results/press.csv")
    options = parser.parse_args()
    options.rows = options.rows or list(ROWS)
    return options


def checkpoint(folder: Path, shape: str, layers: int | None) -> Path:
    """A seeded random float16 GGUF of a Pythia's shape."""
    sizes = SHAPES[shape] | ({"n_layers": layers} if layers else {})
    metadata = model_metadata(**sizes)
    metadata["tokenizer.ggml.tokens"] = [f"t{i}" for i in range(N_TOKENS)]
    metadata["tokenizer.ggml.token_type"] = np.ones(N_TOKENS, np.int32)
    return write_gguf(folder / f"random-{shape}.F16.gguf", metadata, seed=410, hard=False)


def turn(source: Path, work: Path, rows: Sequence[str], threads: int) -> dict:
    """Some rows of ours, then llama.cpp's 16 files one by one."""
    result: dict = {"ours": {}, "theirs": {}, "rss": {}}
    ours(source, work / "out", "all", threads)  # kernels compiled, source in memory
    for name in rows:
        result["ours"][name], result["rss"][name] = ours(
            source, work / "out", ROWS[name], threads, cold="first run" in name
        )
    for name in DISTINCT:
        started = time.perf_counter()
        oracle.quantize(source, work / "theirs.gguf", QUANTS[name].file_type, threads=threads)
        result["theirs"][name] = time.perf_counter() - started
        (work / "theirs.gguf").unlink()
    print(
        "turn:",
        {k: round(v, 2) for k, v in result["ours"].items()},
        f"llama.cpp {sum(result['theirs'].values()):.1f} s",
    )
    return result


def ours(source: Path, out: Path, quants: str, threads: int, *, cold: bool = False) -> tuple[float, int]:
    """Wall seconds and peak memory in bytes of one `pythia quantize`, process start and end included."""
    shutil.rmtree(out, ignore_errors=True)
    env = dict(os.environ)
    command = [sys.executable, "-c", COMMAND, "quantize", str(source), "--out", str(out), "--quants", quants]
    with tempfile.TemporaryDirectory() as cache:
        if cold:
            env["PYTHIA_GGUF_CACHE"] = cache
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--threads", str(threads), "--quiet"], env=env, check=True, stdout=subprocess.PIPE
        )
        seconds = time.perf_counter() - started
    return seconds, int(done.stdout) * 1024


def in_stages(source: Path, out: Path, threads: int) -> dict[str, float]:
    """Thread seconds of each stage of one run, and its wall seconds: stages overlap, so they add up to more."""
    from pythia_gguf import quantize
    from pythia_gguf.press import output, pressing, slabs, weights

    spent: dict[str, float] = {}

    def timed(owner: object, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: object, **options: object) -> object:
            started = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - started

        setattr(owner, name, wrapped)

    timed(weights.WeightReader, "read", "read and widen")
    timed(slabs, "encode", "encode")
    timed(output.FileWriter, "_write", "write")
    timed(output.FileWriter, "append", "copy and write")
    timed(pressing.FileBytes, "take", "hash, copy and write")
    timed(pressing.TensorHashes, "take", "hash tensors")
    timed(os, "fsync", "sync")
    started = time.perf_counter()
    quantize(source, out, quants=list(DISTINCT), threads=threads)
    spent["wall"] = time.perf_counter() - started
    spent["hash files"] = spent.pop("hash, copy and write") - spent["copy and write"]
    spent["copy"] = spent.pop("copy and write") - spent["write"]
    return {name: round(s, 2) for name, s in sorted(spent.items(), key=lambda item: -item[1])}


def row(name: str, turns: list[dict]) -> dict:
    """Medians of one row, and the ratio turn by turn."""
    names = DISTINCT if "16" in name else ["Q4_K_M"] if "alone" in name else list(QUANTS)

    def theirs_s(t: dict) -> float:
        return sum(t["theirs"][QUANTS[n].alias_of or n] for n in names)

    ratios = sorted(theirs_s(t) / t["ours"][name] for t in turns)
    return {
        "files": name,
        "ours_s": round(statistics.median(t["ours"][name] for t in turns), 2),
        "llama_cpp_s": round(statistics.median(theirs_s(t) for t in turns), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[0], 2),
        "ratio_max": round(ratios[-1], 2),
    }


def show(rows: list[dict], stages: dict[str, float], rss: dict[str, int], threads: int) -> None:
    """The tables for people."""
    print(f"\n{'files':44} {'ours':>8} {'llama.cpp':>10} {'ratio':>7}")
    for r in rows:
        print(f"{r['files']:44} {r['ours_s']:6.1f} s {r['llama_cpp_s']:8.1f} s {r['ratio']:7.1f}")
    if stages:
        print("\nthread seconds of the 16 files (stages overlap; share of the wall time of all processors)")
        wall = stages["wall"]
        for name, seconds in stages.items():
            print(f"{name:20} {seconds:7.2f} s {seconds / wall:7.1%} of the wall time")
        name, longest = max(((n, t) for n, t in stages.items() if n != "wall"), key=lambda item: item[1])
        ratio = wall * threads / longest
        print(
            f"{name} alone fills {longest / threads:.2f} s of {threads} threads; the run takes {ratio:.2f} times that"
        )
    print("\npeak memory: " + ", ".join(f"{name} {n / 1e6:.0f} MB" for name, n in rss.items()))


def save(rows: list[dict], stages: dict[str, float], rss: dict[str, int], threads: int) -> None:
    """press.csv: one row a menu; press_stages.csv: seconds and memory; both with machine, date and versions."""
    write_table("press.csv", rows, threads, key=("files", "compiled_for", "threads", "cpu"))
    if stages:
        facts = [{"fact": f"{name}, thread seconds", "value": s} for name, s in stages.items()]
        facts += [{"fact": f"peak memory {name}, MB", "value": round(n / 1e6)} for name, n in rss.items()]
        write_table("press_stages.csv", facts, threads)


def write_table(file: str, rows: list[dict], threads: int, key: Sequence[str] = ()) -> None:
    """A file of bench/results: rows with machine, date and versions.

    key  columns that name a row: rows with another name stay; without columns all old rows go
    """
    where = {
        "threads": threads,
        "cpu": cpu(),
        "date": str(date.today()),
        "numba": numba.__version__,
        "llama_cpp": "0c1e57098",
    }
    path = ROOT / "bench" / "results" / file
    new = [{**where, **r} for r in rows]
    old = list(csv.DictReader(path.open(encoding="utf-8", newline=""))) if key and path.exists() else []
    named = {tuple(str(r[k]) for k in key) for r in new}
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, list(dict.fromkeys([*rows[0], *where])), lineterminator="\n")
        writer.writeheader()
        writer.writerows([r for r in old if tuple(r[k] for k in key) not in named] + new)


if __name__ == "__main__":
    main()
