"""How long the order of training takes, at the size of the Pile: 147,164,160 rows of 210 million documents.

    python bench/bench_order.py [--part 10] [--save]

Sizes of documents are synthetic: log-normal, with the Pile's mean, 332 billion tokens in all. The ids are not
read, so PREFIX.bin is a file without content. `--part 10` takes a tenth of documents and rows; `--save` writes a row of
bench/results/order.csv.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from bench_encoders import cpu  # noqa: E402

from pythia_gguf.data.order import make_order  # noqa: E402
from pythia_gguf.data.token_file import TokenFile, bin_path, idx_path, write_idx  # noqa: E402

N_DOCUMENTS, STEPS = 210_000_000, 143_000
MEAN_TOKENS, SPREAD = 1581, 1.5


def save(row: dict[str, float | str]) -> None:
    """The row, with machine, date and version, in place of the one for as many documents."""
    where = {"cpu": cpu(), "date": str(date.today()), "numpy": np.__version__}
    path = ROOT / "bench" / "results" / "order.csv"
    others: list[dict[str, str]] = []
    if path.exists():
        with open(path, encoding="utf-8", newline="") as f:
            others = [old for old in csv.DictReader(f) if old["documents"] != str(row["documents"])]
    with open(path, "w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, [*row, *where], lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others, row | where])


def main() -> None:
    """Build it once in a folder that goes away, and say how long each part took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    n, steps = N_DOCUMENTS // given.part, STEPS // given.part
    with tempfile.TemporaryDirectory(dir=".") as folder:
        prefix = Path(folder) / "synthetic"
        draw = np.random.default_rng(1234).lognormal(np.log(MEAN_TOKENS) - SPREAD**2 / 2, SPREAD, n)
        sizes = np.clip(draw, 1, 2**31 - 1).astype(np.int32)
        del draw
        write_idx(idx_path(prefix), sizes)
        with open(bin_path(prefix), "wb") as file:
            file.truncate(2 * int(sizes.sum(dtype=np.int64)))
        del sizes
        started = time.perf_counter()
        TokenFile(prefix).close()
        checked = time.perf_counter() - started
        order = make_order(prefix, steps=steps)
        taken = time.perf_counter() - started - checked
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        row: dict[str, float | str] = {
            "documents": n,
            "rows": order.n_rows,
            "epochs": order.n_epochs,
            "check_s": round(checked, 1),
        }
        row |= {"order_s": round(taken, 1), "peak_gb": round(peak, 2)}
        print(row)
        if given.save:
            save(row)


if __name__ == "__main__":
    main()
