"""Traces every task of the press, and says what more processors would make of them.

    python bench/trace_press.py [--turns 3] [--work FOLDER] [--save]      some minutes

It presses the 16 distinct files of a random 410M-shaped model with two threads and notes each task: when it ran, in
which thread, for how much processor time. `replay.py` schedules these tasks anew: with two processors and this disk it
must give the time that was measured, and then it can be believed about 16. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402
from bench_press import DISTINCT, checkpoint, write_table  # noqa: E402
from replay import Task, longest_chain, replay  # noqa: E402

from pythia_gguf.formats import FORMATS  # noqa: E402

# The machine of the question: its disk, and how many processors.
DISK_BYTES_PER_S = 1.8e9
PROCESSORS = (1, 2, 4, 8, 16)
THREADS = 2
COLUMNS = ("name", "slab", "started", "ended", "cpu_s", "thread", "n_bytes", "after")


def main() -> None:
    """Measure, replay, print, and save when asked to."""
    options = parse()
    if options.child:
        trace_here(*options.child)
        return
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        source = options.source or checkpoint(Path(work), "410m", None)
        disk = bytes_per_s_of_disk(Path(work))
        runs = [trace(source, Path(work) / "out", Path(work)) for _ in range(options.turns + 1)][1:]
    run = sorted(runs, key=lambda r: r["wall_s"])[len(runs) // 2]
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
    parser.add_argument("--trace", type=Path, help="write the tasks of the run in the middle as CSV")
    parser.add_argument("--save", action="store_true", help="write bench/results/press_many_cores.csv")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
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
    subprocess.run([sys.executable, __file__, "--child", str(source), str(out), str(result)], check=True)
    ended = time.time()
    run = json.loads(result.read_text("utf-8"))
    return run | {"wall_s": ended - started, "before_s": run["begun"] - started, "after_s": ended - run["ended"]}


def trace_here(source: str, out: str, result: str) -> None:
    """The run itself, in this process."""
    from pythia_gguf.cli.main import main as pythia
    from pythia_gguf.press import pressing, quantize, source_hashes

    rows: list[dict[str, Any]] = []
    times: dict[str, float] = {}
    press, hash_source = pressing.press, source_hashes.hash_source

    @contextlib.contextmanager
    def watch(slab: Any, taker: Any) -> Iterator[None]:
        started, computed = time.perf_counter(), time.thread_time()
        yield
        cpu_s = time.thread_time() - computed
        name, n_bytes = described(slab, taker)
        at = (slab.tensor.name, slab.start)
        ended = time.perf_counter()
        rows.append(dict(zip(COLUMNS, (name, at, started, ended, cpu_s, threading.get_ident(), n_bytes), strict=False)))

    def press_watched(*args: Any, **options: Any) -> Any:
        times["begun"] = time.time()
        try:
            return press(*args, **options, watch=watch)
        finally:
            times["ended"] = time.time()

    def hash_timed(*args: Any) -> Any:
        computed = time.thread_time()
        try:
            return hash_source(*args)
        finally:
            times["hash_source_s"] = time.thread_time() - computed

    pressing.press, quantize.hash_source = press_watched, hash_timed
    quants = ",".join(DISTINCT)
    sys.argv = ["pythia", "quantize", source, "--out", out, "--quants", quants, "--threads", str(THREADS), "--quiet"]
    with contextlib.suppress(SystemExit):
        pythia()
    times["cpu_s"] = time.process_time()
    Path(result).write_text(json.dumps(times | {"rows": rows}), "utf-8")


def described(slab: Any, taker: Any) -> tuple[str, int]:
    """The name of a task, and how many bytes it writes."""
    if taker is None:
        return "encode", 0
    owner = taker.__self__
    if not hasattr(owner, "output"):
        return f"hash tensors in {owner.format}", 0
    if isinstance(owner.append.__self__, type(hashlib.sha256())):
        return f"hash {owner.output.path.name}", 0
    n_bytes = FORMATS[owner.output.formats[slab.tensor.name]].row_bytes(slab.n_weights)
    return f"write {owner.output.path.name}", n_bytes


def tasks_of(run: dict[str, Any]) -> list[Task]:
    """The tasks of a run, and what each waits for; everything before the pass is one task, and everything after it."""
    slabs = list(dict.fromkeys(tuple(row["slab"]) for row in order_of(run["rows"])))
    tasks = [
        Task(name="before the pass", after=(), cpu_s=run["before_s"]),
        Task(name="hash the source", after=(0,), cpu_s=run["hash_source_s"]),
    ]
    encodings: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    for row in order_of(run["rows"]):
        slab = tuple(row["slab"])
        row["task"] = len(tasks)
        after = (0,) if row["name"] == "encode" else (encodings[slab], *[last[n] for n in [row["name"]] if n in last])
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
    return [*tasks, Task(name="after the pass", after=tuple(range(1, len(tasks))), cpu_s=run["after_s"])]


def order_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of slabs, each encoding before the takers."""
    order = {slab: i for i, slab in enumerate(slabs_in_order(rows))}
    return sorted(rows, key=lambda row: (order[tuple(row["slab"])], row["name"] != "encode"))


def slabs_in_order(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The slabs in the order of the pass, which is that of any taker."""
    first = next(row["name"] for row in rows if row["name"].startswith("write "))
    return [tuple(row["slab"]) for row in rows if row["name"] == first]


def told(run: dict[str, Any], disk: float) -> dict[str, float]:
    """The facts of a run and of its replays."""
    tasks = tasks_of(run)

    def seconds(n: int, rate: float) -> float:
        return replay(tasks, processors=n, threads=n, n_buffers=2 * n + 4, disk_bytes_per_s=rate)

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
        "before the pass, s": run["before_s"],
        "after the pass, s": run["after_s"],
        "hash the source, processor s": run["hash_source_s"],
        **{f"{kind}, processor s": s for kind, s in sorted(kinds.items())},
        "all of the process, processor s": run["cpu_s"],
        "longest chain once the pass has begun, s": chain - run["before_s"],
        **{f"replayed on {n} processors, disk of 1.8 GB/s, s": seconds(n, DISK_BYTES_PER_S) for n in PROCESSORS},
    }
    print("longest chain: " + "; ".join([*names[:3], f"... {len(names) - 4} more", names[-1]]))
    return {name: round(value, 3) for name, value in facts.items()}


def write_trace(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a task, in the order of their numbers."""
    with open(path, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, ["task", *COLUMNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["task"]))


if __name__ == "__main__":
    main()
