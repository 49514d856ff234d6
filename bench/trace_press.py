"""Traces every task of the press, and says what more processors would make of them.

    python bench/trace_press.py [--turns 3] [--work FOLDER] [--save]      some minutes

It presses the 16 distinct files of a random 410M-shaped model with two threads and notes each task: when it ran, in
which thread, for how much processor time. `replay.py` schedules these tasks anew: with two processors and this disk it
must give the time that was measured, and then it can be believed about 16. The last line is one JSON object.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402
from bench_press import DISTINCT, checkpoint, write_table  # noqa: E402
from replay import Task, longest_chain, replay  # noqa: E402

from pythia_gguf.press.pipeline import slabs_on_their_way, taking_threads  # noqa: E402

# The machine of the question: its disk, and how many processors.
DISK_BYTES_PER_S = 1.8e9
PROCESSORS = (1, 2, 4, 8, 16)
THREADS = 2
COLUMNS = ("task", "name", "slab", "started", "ended", "cpu_s", "thread", "n_bytes", "after")


def main() -> None:
    """Measure, replay, print, and save when asked to."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        source = options.source or checkpoint(Path(work), "410m", None)
        disk = bytes_per_s_of_disk(Path(work))
        runs = [trace(source, Path(work) / "out", Path(work)) for _ in range(options.turns + 1)][1:]
    run = min(runs, key=lambda r: r["wall_s"])  # the one that other work on the machine has disturbed least
    facts = {"turns": len(runs)} | told(run, disk)
    for name, value in facts.items():
        print(f"{name:60} {value}")
    if options.trace:
        write_trace(options.trace, run["rows"])
    if options.save:
        write_table("press_many_cores.csv", [{"fact": n, "value": v} for n, v in facts.items()], THREADS)
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "facts": facts}))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--source", type=Path, help="an F16 GGUF; default a random one of the shape of Pythia 410M")
    parser.add_argument("--work", help="folder for 6 GB of files; default the system's")
    parser.add_argument("--trace", type=Path, help="write the tasks of the fastest run as CSV")
    parser.add_argument("--save", action="store_true", help="write bench/results/press_many_cores.csv")
    return parser.parse_args()


def bytes_per_s_of_disk(folder: Path) -> float:
    """How fast files are written here as the press writes them: the median of five files of 256 MiB."""
    from pythia_gguf.press.output import BUFFER_BYTES, FileWriter

    data, rates = os.urandom(BUFFER_BYTES), []
    for _ in range(5):
        with open(folder / "disk", "wb", buffering=0) as file:
            writer = FileWriter(folder / "disk", file)
            started, computed = time.perf_counter(), time.thread_time()
            for _ in range(256):
                writer.append(data)
            waited = time.perf_counter() - started - (time.thread_time() - computed)
        rates.append(256 * BUFFER_BYTES / max(waited, 1e-3))
        (folder / "disk").unlink()
    return statistics.median(rates)


def trace(source: Path, out: Path, work: Path) -> dict[str, Any]:
    """One run in a process of its own: wall seconds, those of its parts, and a row for each task."""
    shutil.rmtree(out, ignore_errors=True)
    result = work / "trace.json"
    started = time.time()
    child = [sys.executable, str(ROOT / "bench" / "traced_run.py"), str(result)]
    subprocess.run([*child, str(source), str(out), ",".join(DISTINCT), str(THREADS)], check=True)
    run = json.loads(result.read_text("utf-8"))
    ends = {"wall_s": "done", "before_s": "begun", "before_hash_s": "hash_begun"}
    return run | {name: run[end] - started for name, end in ends.items()} | {"after_s": run["done"] - run["ended"]}


def tasks_of(run: dict[str, Any]) -> list[Task]:
    """The tasks of a run, and what each waits for.

    Everything before the source is hashed is one task, and so are the rest before the pass and everything after it.
    """
    slabs = list(dict.fromkeys(tuple(row["slab"]) for row in order_of(run["rows"])))
    tasks = [
        Task(name="before the hash", after=(), cpu_s=run["before_hash_s"]),
        Task(name="before the pass", after=(0,), cpu_s=run["before_s"] - run["before_hash_s"]),
        Task(name="hash the source", after=(0,), cpu_s=run["hash_source_s"]),
    ]
    encodings: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    for row in order_of(run["rows"]):
        slab = tuple(row["slab"])
        row["task"] = len(tasks)
        after = (1,) if row["name"] == "encode" else (encodings[slab], *[last[n] for n in [row["name"]] if n in last])
        if row["name"] == "encode":
            encodings[slab] = len(tasks)
        last[row["name"]] = len(tasks)
        row["after"] = after
        tasks.append(
            Task(
                name=f"{row['name']}, {slab[0]} from row {slab[1]}",
                after=after,
                cpu_s=row["cpu_s"],
                n_bytes=row["n_bytes"],
                slab=slabs.index(slab),
                encodes=row["name"] == "encode",
            )
        )
    return [*tasks, Task(name="after the pass", after=tuple(range(2, len(tasks))), cpu_s=run["after_s"])]


def order_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of slabs, each encoding before the takers."""
    order = {slab: i for i, slab in enumerate(slabs_in_order(rows))}
    return sorted(rows, key=lambda row: (order[tuple(row["slab"])], row["name"] != "encode"))


def slabs_in_order(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The slabs in the order of the pass; every taker takes them in this order."""
    first = next(row["name"] for row in rows if row["name"].startswith("write "))
    return [tuple(row["slab"]) for row in rows if row["name"] == first]


def told(run: dict[str, Any], disk: float) -> dict[str, float]:
    """The facts of a run and of its replays."""
    tasks = tasks_of(run)

    def seconds(n: int, rate: float) -> float:
        limits = {"n_taking": taking_threads(n), "n_buffers": slabs_on_their_way(n)}
        return replay(tasks, processors=n, threads=n, **limits, disk_bytes_per_s=rate)

    chain, names = longest_chain(tasks, DISK_BYTES_PER_S)
    again = seconds(THREADS, disk)
    kinds: dict[str, float] = {}
    for row in run["rows"]:
        kind = " ".join(row["name"].split()[:2]) if "tensors" in row["name"] else row["name"].split()[0]
        kinds[kind] = kinds.get(kind, 0.0) + row["cpu_s"]
    facts = {
        "tasks": len(tasks),
        "GB that are written": sum(task.n_bytes for task in tasks) / 1e9,
        "GB/s of this disk": disk / 1e9,
        "measured, s": run["wall_s"],
        "the same replayed, s": again,
        "replayed over measured": again / run["wall_s"],
        "before the source is hashed, s": run["before_hash_s"],
        "before the pass, s": run["before_s"],
        "after the pass, s": run["after_s"],
        "hash the source, processor s": run["hash_source_s"],
        **{f"{kind}, processor s": s for kind, s in sorted(kinds.items())},
        "all of the process, processor s": run["cpu_s"],
        "longest chain from the start of the process, s": chain,
        **{f"replayed on {n} processors, disk of 1.8 GB/s, s": seconds(n, DISK_BYTES_PER_S) for n in PROCESSORS},
    }
    shown = names if len(names) < 8 else [*names[:3], f"{len(names) - 4} more", names[-1]]
    print("longest chain: " + "; ".join(shown))
    return {name: round(value, 3) for name, value in facts.items()}


def write_trace(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a task, in the order of their numbers."""
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["task"]))


if __name__ == "__main__":
    main()
