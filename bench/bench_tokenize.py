"""Tokens a second of `pythia data tokenize`, beside the `tokenizers` library alone on the same cores.

    python bench/bench_tokenize.py TOKENIZER.json TEXT... [--megabytes 64] [--save]

The texts are cut into documents of some 4 KB and repeated until there are enough. The library gets them as a list in
memory and makes ids with all its threads (encode_batch_fast); we read lines of JSON and write our files. Both take
turns, five times.
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
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402

from pythia_gguf.data.tokenizing import tokenize  # noqa: E402
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer  # noqa: E402

TURNS = 5
DOCUMENT_CHARS = 4000


def documents(paths: list[Path], n_bytes: int) -> list[str]:
    """The texts in pieces, again and again."""
    texts = [path.read_text("utf-8", "replace") for path in paths]
    pieces = [text[at : at + DOCUMENT_CHARS] for text in texts for at in range(0, len(text), DOCUMENT_CHARS)]
    found: list[str] = []
    while n_bytes > 0:
        for piece in pieces:
            found.append(piece)
            n_bytes -= len(piece)
            if n_bytes <= 0:
                break
    return found


def main() -> None:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    texts = documents(given.text, given.megabytes * 1_000_000)
    library = load_tokenizer(given.tokenizer)
    alone, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        for turn in range(TURNS):
            started = time.perf_counter()
            encoded = library.encode_batch_fast(texts, add_special_tokens=False)
            middle = time.perf_counter()
            n_tokens = sum(len(each) for each in encoded) + len(texts)
            del encoded
            begun = time.perf_counter()
            told = tokenize([corpus], Path(folder) / f"x{turn}", tokenizer=given.tokenizer)
            assert told["n_tokens"] == n_tokens
            alone.append(n_tokens / (middle - started))
            ours.append(n_tokens / (time.perf_counter() - begun))
    row: dict[str, float | str] = {
        "tokens": n_tokens,
        "library_tokens_per_s": round(statistics.median(alone)),
        "ours_tokens_per_s": round(statistics.median(ours)),
        "ratio": round(statistics.median(o / a for o, a in zip(ours, alone, strict=True)), 2),
    }
    print(row)
    if given.save:
        with open(ROOT / "bench" / "results" / "tokenize.csv", "w", encoding="utf-8", newline="") as f:
            writer = csv.DictWriter(f, [*row, "cpu", "date"], lineterminator="\n")
            writer.writeheader()
            writer.writerow(row | {"cpu": cpu(), "date": str(date.today())})


if __name__ == "__main__":
    main()
