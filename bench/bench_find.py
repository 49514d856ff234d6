"""`pythia data index`, `find` and `trace` on 100 million tokens: time and memory to sort, bytes a token, milliseconds.

    python bench/bench_find.py PREFIX [--tokens 100] [--peer] [--save]

PREFIX is real text, as `pythia data tokenize` makes it. Its documents are taken as they are, and then filled up to
`--tokens` million tokens with documents drawn from their bigrams; 1 % are exact repeats of 10,000 tokens. Queries are 8
to 50 tokens, half of them from the corpus, half with a token exchanged so that they are not there. `--peer` also builds
and asks tokengrams, where it is installed, and compares counts; that sorts 5 million tokens in a minute or more.
`--save` writes rows of bench/results/find.csv, in place of those for as many tokens.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402

from pythia_gguf.data.finding import Finder  # noqa: E402
from pythia_gguf.data.index import make_index  # noqa: E402
from pythia_gguf.data.order import make_order  # noqa: E402
from pythia_gguf.data.token_file import TokenFile, bin_path, idx_path, write_idx  # noqa: E402
from pythia_gguf.data.tracing import trace  # noqa: E402

EOD = 0
CHAINS, REPEAT_TOKENS, QUERIES, WARM_UP, TRACES, TRACE_TOKENS = 20_000, 10_000, 10_000, 1_000, 50, 200


def drawn(tokens: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Documents of n tokens in all, each token drawn from those that follow the one before it in `tokens`."""
    before, after = tokens[:-1], tokens[1:]
    order = np.argsort(before, kind="stable")
    counts = np.bincount(before, minlength=1 << 16)
    firsts = np.cumsum(counts) - counts
    length = -(-n // CHAINS)
    out = np.empty((CHAINS, length), np.uint16)
    out[:, 0] = after[before == EOD][rng.integers(0, np.count_nonzero(before == EOD), CHAINS)]
    for i in range(1, length):
        last = out[:, i - 1]
        draw = (rng.random(CHAINS) * counts[last]).astype(np.int64)
        out[:, i] = after[order[firsts[last] + draw]]
    out[:, -1] = EOD
    return out.ravel()[-n:]


def write_corpus(source: Path, prefix: Path, n: int) -> np.ndarray:
    """Real documents, drawn ones, and repeats, as PREFIX.bin and PREFIX.idx; returns the ids."""
    rng = np.random.default_rng(1)
    with TokenFile(source) as real:
        ids = real.slice(0, min(n, real.n_tokens)).astype(np.uint16)
    ids[-1] = EOD
    n_repeats = n // 100 // REPEAT_TOKENS
    fill = n - ids.size - n_repeats * (REPEAT_TOKENS + 1)
    parts = [ids, drawn(ids, fill, rng)] if fill > 0 else [ids]
    for at in rng.integers(0, ids.size - REPEAT_TOKENS, n_repeats):
        parts += [ids[at : at + REPEAT_TOKENS], np.array([EOD], np.uint16)]
    whole = np.concatenate(parts)
    ends = np.flatnonzero(whole == EOD)
    whole.astype("<u2").tofile(bin_path(prefix))
    write_idx(idx_path(prefix), np.diff(ends, prepend=-1).astype(np.int32))
    return whole


def queries(ids: np.ndarray, n: int, rng: np.random.Generator) -> list[list[int]]:
    """Half as they stand in a document, half with their last token exchanged for a rare one."""
    found: list[list[int]] = []
    while len(found) < n:
        size = int(rng.integers(8, 51))
        at = int(rng.integers(0, ids.size - size))
        query = ids[at : at + size].tolist()
        if EOD in query[:-1]:
            continue
        if len(found) % 2:
            query[int(rng.integers(size // 2, size))] = int(rng.integers(1000, 50000))
        found.append(query)
    return found


def timed(ask: Callable[[list[int]], object], asked: list[list[int]]) -> tuple[float, float]:
    """Milliseconds of a question: median, and what 99 % stay below."""
    times = []
    for query in asked:
        started = time.perf_counter()
        ask(query)
        times.append(time.perf_counter() - started)
    return round(1e3 * float(np.median(times)), 3), round(1e3 * float(np.percentile(times, 99)), 3)


def measure_build(prefix: Path, send: Callable[[tuple[float, float]], None]) -> None:
    """Sort in a process of its own, whose peak of memory sorting alone makes."""
    started = time.perf_counter()
    make_index(prefix)
    send((time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def built(prefix: Path) -> dict[str, float]:
    """Seconds, peak of memory, and bytes on the disk."""
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=measure_build, args=(prefix, send.send))
    process.start()
    seconds, peak = receive.recv()
    process.join()
    files = [bin_path(prefix), *prefix.parent.glob(f"{prefix.name}.suffixes.*")]
    n_bytes = sum(path.stat().st_size for path in files)
    return {
        "build_s": round(seconds, 1),
        "peak_gb": round(peak, 2),
        "bytes_a_token": round(n_bytes / (bin_path(prefix).stat().st_size / 2), 3),
    }


def asked(prefix: Path, ids: np.ndarray) -> dict[str, float]:
    """Times of opening, of questions, and of traces."""
    rng = np.random.default_rng(2)
    started = time.perf_counter()
    finder = Finder(prefix)
    opened = time.perf_counter() - started
    for query in queries(ids, WARM_UP, rng):
        finder.occurrences(query)
    measured = queries(ids, QUERIES, rng)
    count, first = timed(finder.count, measured), timed(finder.sights, measured)
    n_there = sum(finder.count(query) > 0 for query in measured)
    texts = [[i for query in queries(ids, 20, rng) for i in query][:TRACE_TOKENS] for _ in range(TRACES)]
    traced = timed(lambda text: trace(finder, text), texts)
    finder.close()
    return {
        "open_s": round(opened, 2),
        "there": n_there,
        "count_p50_ms": count[0],
        "count_p99_ms": count[1],
        "sights_p50_ms": first[0],
        "sights_p99_ms": first[1],
        "trace_p50_ms": traced[0],
        "trace_p99_ms": traced[1],
    }


def peer(prefix: Path, ids: np.ndarray) -> dict[str, float]:
    """The same of tokengrams, which counts and knows neither documents nor steps."""
    from tokengrams import MemmapIndex

    rng = np.random.default_rng(2)
    table = prefix.with_suffix(".tokengrams")
    started = time.perf_counter()
    index = MemmapIndex.build(str(bin_path(prefix)), str(table))
    seconds = time.perf_counter() - started
    for query in queries(ids, WARM_UP, rng):
        index.count(query)
    measured = queries(ids, QUERIES, rng)
    count = timed(index.count, measured)
    with Finder(prefix) as finder:
        assert [finder.count(query) for query in measured] == [index.count(query) for query in measured]
    n_bytes = table.stat().st_size + bin_path(prefix).stat().st_size
    return {
        "build_s": round(seconds, 1),
        "bytes_a_token": round(n_bytes / ids.size, 3),
        "count_p50_ms": count[0],
        "count_p99_ms": count[1],
    }


def save(rows: list[dict[str, float | str]]) -> None:
    """The rows with machine and date, and those of other numbers of tokens that are there."""
    path = ROOT / "bench" / "results" / "find.csv"
    others: list[dict[str, str]] = []
    if path.exists():
        with open(path, encoding="utf-8", newline="") as f:
            others = [old for old in csv.DictReader(f) if old["tokens"] != str(rows[0]["tokens"])]
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, [*rows[0], "cpu", "date"], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, *(row | {"cpu": cpu(), "date": str(date.today())} for row in rows)])


def main() -> None:
    """Measure once, in a folder that goes away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--tokens", type=float, default=100, help="Millions.")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.prefix.parent) as folder:
        prefix = Path(folder) / "corpus"
        ids = write_corpus(given.prefix, prefix, int(given.tokens * 1e6))
        make_order(prefix, steps=max(1, ids.size // (2048 * 1024)))
        rows: list[dict[str, float | str]] = [
            {"program": "pythia-gguf", "tokens": ids.size} | built(prefix) | asked(prefix, ids)
        ]
        print(rows[-1], flush=True)
        if given.peer:
            rows.append({"program": "tokengrams", "tokens": ids.size} | peer(prefix, ids))
            print(rows[-1])
    if given.save:
        save(rows)


if __name__ == "__main__":
    main()
