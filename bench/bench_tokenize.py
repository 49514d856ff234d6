"""Tokens a second of `pythia data tokenize`, beside the `tokenizers` library alone on the same cores.

    python bench/bench_tokenize.py TOKENIZER.json CORPUS.jsonl... [--megabytes 24] [--save]

Documents are those of the files, one of each file in turn, until there are enough. The library gets them as a list in
memory and makes ids with all its threads (encode_batch_fast); we read lines of JSON and write our files, and start our
processes in the time that counts. Both take turns, and each has a new tokenizer, so neither finds words in a cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from datetime import date
from itertools import chain, zip_longest
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from pythia_gguf.data.tokenizing import tokenize  # noqa: E402
from pythia_gguf.machine import usable_cpus  # noqa: E402
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer  # noqa: E402

TURNS = 3


def documents(paths: list[Path], n_bytes: int) -> list[str]:
    """Texts of lines of JSON, of the files in turn."""
    files = [map(json.loads, path.read_bytes().splitlines()) for path in paths]
    found: list[str] = []
    for line in chain.from_iterable(zip_longest(*files)):
        if line is not None and n_bytes > 0:
            found.append(line["text"])
            n_bytes -= len(line["text"].encode())
    return found


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("corpus", type=Path, nargs="+")
    parser.add_argument("--megabytes", type=int, default=24)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    texts = documents(given.corpus, given.megabytes * 1_000_000)
    alone, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        for turn in range(TURNS):
            library = load_tokenizer(given.tokenizer)
            started = time.perf_counter()
            encoded = library.encode_batch_fast(texts, add_special_tokens=False)
            middle = time.perf_counter()
            n_tokens = sum(len(each) for each in encoded) + sum(map(bool, texts))
            del encoded
            begun = time.perf_counter()
            told = tokenize([corpus], Path(folder) / f"x{turn}", tokenizer=given.tokenizer)
            assert told["n_tokens"] == n_tokens
            alone.append(n_tokens / (middle - started))
            ours.append(n_tokens / (time.perf_counter() - begun))
            print(f"turn {turn}: alone {alone[-1]:,.0f} tokens/s, ours {ours[-1]:,.0f}", flush=True)
    ratios = [o / a for o, a in zip(ours, alone, strict=True)]
    row: dict[str, float | str] = {
        "documents": len(texts),
        "tokens": n_tokens,
        "processes": usable_cpus().n,
        "library_tokens_per_s": round(statistics.median(alone)),
        "ours_tokens_per_s": round(statistics.median(ours)),
        "ratio": round(statistics.median(ratios), 2),
        "least_ratio": round(min(ratios), 2),
        "most_ratio": round(max(ratios), 2),
    }
    print(row)
    if given.save:
        # Our processes read this file too, and need none of the kernels that this one imports.
        from bench_encoders import cpu

        with open(ROOT / "bench" / "results" / "tokenize.csv", "w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, [*row, "cpu", "date"], lineterminator="\n")
            writer.writeheader()
            writer.writerow(row | {"cpu": cpu(), "date": str(date.today())})


if __name__ == "__main__":
    main()
