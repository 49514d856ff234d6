"""`make readme`: puts the tables of bench/results into README.md, so that no figure is typed by hand.

Knows no measurement; a test fails when README.md and the tables differ.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Rewrite README.md."""
    README.write_text(filled(README.read_text("utf-8")), "utf-8", newline="\n")


def filled(text: str) -> str:
    """README text with every table made from its results."""
    for name, table in {"encoders": encoders()}.items():
        pattern = re.compile(rf"(<!-- {name} start -->\n).*?(<!-- {name} end -->)", re.DOTALL)
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


def encoders() -> str:
    """Ours, llama.cpp's and their ratio per format."""
    with open(RESULTS / "encoders.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    lines = [
        "| format | pythia-gguf, M weights/s | llama.cpp | ratio (lowest to highest of 7 turns) |",
        "|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['format']} | {float(r['ours_mweights_per_s']):.0f} | {r['llama_cpp_mweights_per_s']}"
            f" | {r['ratio']} ({r['ratio_min']} to {r['ratio_max']}) |"
        )
    where = (
        f"\nMachine: {rows[0]['cpu']}; {rows[0]['date']}, Numba {rows[0]['numba']}, llama.cpp {rows[0]['llama_cpp']}.\n"
    )
    return "\n".join(lines) + "\n" + where


if __name__ == "__main__":
    main()
