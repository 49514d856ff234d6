"""One `pythia quantize` that notes every task of its pass; `trace_press.py` starts it.

python bench/traced_run.py RESULT SOURCE OUT QUANTS THREADS
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(result: str, source: str, out: str, quants: str, threads: str) -> None:
    """Press, and write what was noted."""
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
        times_of_it = {"started": started, "ended": ended, "cpu_s": cpu_s, "thread": threading.get_ident()}
        rows.append({"name": name, "slab": at, "n_bytes": n_bytes} | times_of_it)

    def press_watched(*args: Any, **options: Any) -> Any:
        times["begun"] = time.time()
        try:
            return press(*args, **options, watch=watch)
        finally:
            times["ended"] = time.time()

    def hash_timed(*args: Any) -> Any:
        times["hash_begun"], computed = time.time(), time.thread_time()
        try:
            return hash_source(*args)
        finally:
            times["hash_source_s"] = time.thread_time() - computed

    pressing.press, quantize.hash_source = press_watched, hash_timed
    sys.argv = ["pythia", "quantize", source, "--out", out, "--quants", quants, "--threads", threads, "--quiet"]
    with contextlib.suppress(SystemExit):
        pythia()
    times |= {"done": time.time(), "cpu_s": time.process_time()}
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
    from pythia_gguf.formats import FORMATS

    n_bytes = FORMATS[owner.output.formats[slab.tensor.name]].row_bytes(slab.n_weights)
    return f"write {owner.output.path.name}", n_bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
