"""`make readme`: puts the tables of bench/results into README.md, so that no figure is typed by hand.

A test fails when the pages and the tables differ.
"""

from __future__ import annotations

import csv
import math
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
    for name, table in {
        "press": press(),
        "encoders": encoders(),
        "engine": engine(),
        "measure": measuring(),
    }.items():
        pattern = re.compile(rf"(<!-- {name} start -->\n).*?(<!-- {name} end -->)", re.DOTALL)
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}{match[2]}", text)
    return text


def press() -> str:
    """Seconds of ours and of llama.cpp per row of files."""
    with open(RESULTS / "press.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    lines = [
        "| files of a 410M model | pythia-gguf | llama.cpp | ratio (lowest to highest turn) |",
        "|---|---|---|---|",
    ]
    for r in rows:
        ratio = f"{r['ratio']} ({r['ratio_min']} to {r['ratio_max']})"
        lines.append(f"| {r['files']} | {float(r['ours_s']):.1f} s | {float(r['llama_cpp_s']):.0f} s | {ratio} |")
    return "\n".join(lines) + "\n"


def encoders() -> str:
    """Ours, llama.cpp's and their ratio per format."""
    with open(RESULTS / "encoders.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    lines = [
        "| format | ours, M weights/s | llama.cpp | ratio (lowest to highest turn) | ratio to the same C, native |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['format']} | {float(r['ours_mweights_per_s']):.0f} | {r['llama_cpp_mweights_per_s']}"
            f" | {r['ratio']} ({r['ratio_min']} to {r['ratio_max']}) | {r['ratio_native']} |"
        )
    where = (
        f"\nMachine: {rows[0]['cpu']}; {rows[0]['date']}, Numba {rows[0]['numba']}, llama.cpp {rows[0]['llama_cpp']}.\n"
    )
    return "\n".join(lines) + "\n" + where


def engine() -> str:
    """Tokens per second of ours and of llama.cpp per file, geometric means, and what else was measured."""
    with open(RESULTS / "engine.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    with open(RESULTS / "engine_more.csv", encoding="utf-8") as f:
        facts = list(csv.DictReader(f))
    lines = [
        "| file | prefill, tokens/s | llama.cpp | ratio | decode, tokens/s | llama.cpp | ratio | of the limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [r["quant"]]
        for kind in ("prefill", "decode"):
            cells += [r[kind], r[f"{kind}_llama_cpp"], r[f"{kind}_ratio"]]
        lines.append(f"| {' | '.join(cells)} | {float(r['decode_of_limit']):.0%} |")
    quantized = [r for r in rows if r["quant"] != "F16"]

    def mean(column: str) -> float:
        return math.exp(sum(math.log(float(r[column])) for r in quantized) / len(quantized))

    means = f"| geometric mean of 16 | | | {mean('prefill_ratio'):.2f} | | | {mean('decode_ratio'):.2f} |"
    lines.append(f"{means} {mean('decode_of_limit'):.0%} |")
    more = ["", *(f"- {fact['fact']}: {fact['value']}" for fact in facts)]
    where = f"\nMachine: {rows[0]['cpu']}; {rows[0]['threads']} threads; {rows[0]['date']}.\n"
    return "\n".join(lines + more) + "\n" + where


def measuring() -> str:
    """What measuring 16 files takes, and tasks of lm_eval; rows of one processor one after the other."""
    with open(RESULTS / "measure.csv", encoding="utf-8") as f:
        wholes = [r for r in csv.DictReader(f) if r["part"]]
    with open(RESULTS / "lm_eval.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    lines = []
    for cpu in dict.fromkeys(r["cpu"] for r in (*wholes, *rows)):
        of_cpu = [r for r in (*wholes, *rows) if r["cpu"] == cpu]
        lines += [
            f"{cpu}; {of_cpu[0]['threads']} threads; {max(r['date'] for r in of_cpu)}:",
            "",
            "| job | pythia-gguf | the other | how many times faster (lowest to highest turn) |",
            "|---|---|---|---|",
            *(_measured_row(r) for r in of_cpu),
            "",
        ]
    return "\n".join(lines)


def _measured_row(r: dict[str, str]) -> str:
    """Of measure.csv, or of lm_eval.csv."""
    if "part" in r:
        job, other = "perplexity and KL divergence of 16 files, 16,384 tokens", "llama-perplexity, 17 passes"
        times = f"{float(r['ours_s']):.0f} s | {other}: {float(r['theirs_s']):.0f} s"
        return f"| {job} | {times} | {1 / float(r['part']):.2f} |"
    job = f"{r['requests']} requests of lm_eval, {r['ours']}"
    other = f"`hf`, {r['hf']}, batches of {r['hf_batch_size']}: {float(r['hf_s']):.0f} s"
    note = "" if r["precision"] != "another" else "; another precision"
    ratio = f"{r['ratio']} ({r['ratio_min']} to {r['ratio_max']})"
    return f"| {job} | {float(r['ours_s']):.0f} s | {other}{note} | {ratio} |"


if __name__ == "__main__":
    main()
