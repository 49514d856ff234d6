"""Documents a second of `pythia data dedup`, beside datatrove's MinHash on the same cores, and what both find.

    python bench/bench_dedup.py [--documents 6000] [--turns 3] [--datatrove PYTHON] [--save]

The texts are words of this project's pages, drawn by their frequency. A tenth of the documents has a copy with some
words changed, so that the pair is 0.87 to 1 alike by exact similarity, and another tenth one that is 0.5 to 0.8 alike.
Both programs cut signatures into the same bands and read the same files, with a process for each core; they take turns.
datatrove lives in an environment of its own in the cache, made from requirements-datatrove.txt.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]


from data.near import changed, similarity  # noqa: E402
from pythia_gguf.data.dedup import dedup  # noqa: E402
from pythia_gguf.data.signatures import banding_for  # noqa: E402
from pythia_gguf.files import cache_root  # noqa: E402
from pythia_gguf.machine import usable_cpus  # noqa: E402

THRESHOLD = 0.87
N_FILES = 4
N_WORDS = (100, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Texts, and pairs of their numbers by how alike they are."""

    texts: list[str]
    similar: list[tuple[int, int]]
    dissimilar: list[tuple[int, int]]


def plant(n: int) -> Planted:
    """A corpus in an order that nobody can use."""
    rng = random.Random(1)
    pages = " ".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    vocabulary = re.findall(r"[a-z]{2,}", pages.lower())
    texts, similar, dissimilar = [], [], []
    while len(texts) < n:
        words = rng.choices(vocabulary, k=rng.randrange(*N_WORDS))
        texts.append(" ".join(words))
        kind = rng.random()
        if kind > 0.2:
            continue
        texts.append(" ".join(changed(words, rng.randrange(1, max(2, len(words) // (70 if kind < 0.1 else 15))), rng)))
        alike = similarity(*texts[-2:])
        pair = (len(texts) - 2, len(texts) - 1)
        if alike >= THRESHOLD:
            similar.append(pair)
        elif 0.5 <= alike < 0.8:
            dissimilar.append(pair)
    order = rng.sample(range(len(texts)), len(texts))
    place = {old: new for new, old in enumerate(order)}
    moved = [[(place[i], place[j]) for i, j in pairs] for pairs in (similar, dissimilar)]
    return Planted(texts=[texts[i] for i in order], similar=moved[0], dissimilar=moved[1])


def write(folder: Path, texts: list[str]) -> list[Path]:
    """Files of lines; each has every fourth text."""
    paths = [folder / f"part{i}.jsonl" for i in range(N_FILES)]
    for i, path in enumerate(paths):
        entries = ({"id": str(k), "text": texts[k]} for k in range(i, len(texts), N_FILES))
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return paths


def ours(paths: list[Path], out: Path) -> tuple[float, set[int]]:
    """Seconds, and the documents that stay."""
    started = time.perf_counter()
    dedup(paths, out)
    seconds = time.perf_counter() - started
    return seconds, {int(json.loads(line)["id"]) for path in paths for line in open(out / path.name, encoding="utf-8")}


def theirs(python: str, corpus: Path, work: Path) -> tuple[float, set[int]]:
    """The same of datatrove."""
    cut = banding_for(THRESHOLD)
    program = [python, str(ROOT / "bench" / "datatrove_dedup.py"), str(corpus), str(work)]
    line = [*program, str(cut.bands), str(cut.rows), str(usable_cpus().n)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    return float(done.stdout.split()[-1]), {int(line) for line in (work / "kept.txt").read_text().split()}


def share_removed(pairs: list[tuple[int, int]], kept: set[int]) -> float:
    """The share of pairs that lost a document."""
    return sum(not {i, j} <= kept for i, j in pairs) / len(pairs)


def datatrove_python(given: str | None) -> str:
    """The interpreter of an environment that has datatrove."""
    if given is not None:
        return given
    folder = cache_root() / "datatrove"
    python, wanted = str(folder / "bin" / "python"), str(ROOT / "bench" / "requirements-datatrove.txt")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
    return python


def rows_of(planted: Planted, runs: dict[str, list[tuple[float, set[int]]]]) -> Iterable[dict[str, float | str]]:
    """A row for each program."""
    ratio = statistics.median(t / o for (o, _), (t, _) in zip(runs["pythia-gguf"], runs["datatrove"], strict=True))
    for name, of_name in runs.items():
        kept = of_name[0][1]
        yield {
            "program": name,
            "documents": len(planted.texts),
            "megabytes": round(sum(map(len, planted.texts)) / 1e6),
            "documents_per_s": round(len(planted.texts) / statistics.median(seconds for seconds, _ in of_name)),
            "times_as_fast": round(ratio, 1) if name == "pythia-gguf" else 1.0,
            "similar_pairs": len(planted.similar),
            "found": round(share_removed(planted.similar, kept), 4),
            "dissimilar_pairs": len(planted.dissimilar),
            "found_wrongly": round(share_removed(planted.dissimilar, kept), 4),
        }


def main() -> None:
    """Print a row for each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=6_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    python, planted = datatrove_python(given.datatrove), plant(given.documents)
    runs: dict[str, list[tuple[float, set[int]]]] = {"pythia-gguf": [], "datatrove": []}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        paths = write(corpus, planted.texts)
        for turn in range(given.turns):
            runs["pythia-gguf"].append(ours(paths, Path(folder) / f"ours{turn}"))
            runs["datatrove"].append(theirs(python, corpus, Path(folder) / f"theirs{turn}"))
    rows = list(rows_of(planted, runs))
    for row in rows:
        print(row)
    if given.save:
        # Processes that help import this file again: what takes long to import is not for all of them.
        from bench_encoders import cpu

        with open(ROOT / "bench" / "results" / "dedup.csv", "w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, [*rows[0], "cpu", "date"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | {"cpu": cpu(), "date": str(date.today())} for row in rows)


if __name__ == "__main__":
    main()
