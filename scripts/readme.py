"""`make readme`: puts the tables of bench/results into README.md and docs/benchmarks.md.

No figure in these pages is typed by hand; a test fails when a page and the results differ.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8")), "utf-8", newline="\n")


def filled(text: str) -> str:
    """The text of a page with every table made from its results."""
    for name, table in {
        "headline": headline,
        "press": press,
        "many": many,
        "encoders": encoders,
        "weighted": weighted,
        "engine": engine,
        "kinds": kinds,
        "threads": threads,
        "more": more,
        "batch": batch,
        "serve": serve,
        "measure": measuring,
    }.items():
        pattern = re.compile(rf"(<!-- {name} start -->\n).*?(<!-- {name} end -->)", re.DOTALL)
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table()}{match[2]}", text)
    return text


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one file of results."""
    with open(RESULTS / f"{name}.csv", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def headline() -> str:
    """One row for each kind of work, all on one processor; the row that we lose is among them."""
    files = next(r for r in rows_of("press") if r["files"] == "16 distinct files")
    quants = {r["quant"]: r for r in rows_of("engine")}
    some, plain = quants["Q4_K_M"], quants["F16"]
    measured = next(r for r in rows_of("measure") if r["part"] and r["cpu"] == files["cpu"])
    tasks = next(r for r in rows_of("lm_eval") if r["ours"] == "F32" and r["cpu"] == files["cpu"])
    lines = [
        f"| 410M model, {files['threads']} threads, {files['cpu']} | pythia-gguf | the other | times as fast |",
        "|---|---|---|---|",
        f"| make the 16 distinct files | {float(files['ours_s']):.0f} s"
        f" | llama.cpp: {float(files['llama_cpp_s']):.0f} s | {files['ratio']} |",
    ]
    for what, r, kind in (
        ("read 512 tokens, Q4_K_M", some, "prefill"),
        ("write 64 tokens, Q4_K_M", some, "decode"),
        ("write 64 tokens, F16", plain, "decode"),
    ):
        ours, theirs = float(r[kind]), float(r[f"{kind}_llama_cpp"])
        lines.append(f"| {what} | {ours:.0f} tokens/s | llama.cpp: {theirs:.0f} tokens/s | {r[f'{kind}_ratio']} |")
    return "\n".join([
        *lines,
        f"| perplexity and KL divergence of 16 files | {float(measured['ours_s']):.0f} s"
        f" | llama-perplexity: {float(measured['theirs_s']):.0f} s | {1 / float(measured['part']):.2f} |",
        f"| {tasks['requests']} requests of lm_eval, F32 | {float(tasks['ours_s']):.0f} s"
        f" | its model `hf`, float32: {float(tasks['hf_s']):.0f} s | {tasks['ratio']} |",
        "",
    ])  # fmt: skip


def press() -> str:
    """Seconds of ours and of llama.cpp per row of files."""
    lines = [
        "| files of a 410M model | processor, compiled for, threads | pythia-gguf | llama.cpp"
        " | ratio (lowest to highest turn) |",
        "|---|---|---|---|---|",
    ]
    for r in rows_of("press"):
        where = f"{r['cpu'].partition(', LLVM')[0]}, {r['compiled_for']}, {r['threads']}"
        ratio = f"{r['ratio']} ({r['ratio_min']} to {r['ratio_max']})"
        times = f"{float(r['ours_s']):.1f} s | {float(r['llama_cpp_s']):.0f} s"
        lines.append(f"| {r['files']} | {where} | {times} | {ratio} |")
    return "\n".join(lines) + "\n"


def many() -> str:
    """The press on many processors: what was measured, and what its trace says about others."""
    rows = rows_of("press_many_cores")
    lines = ["| 16 files of a 410M model | value |", "|---|---|", *(f"| {r['fact']} | {r['value']} |" for r in rows)]
    return "\n".join(lines) + f"\n\nMachine: {rows[0]['cpu']}; {rows[0]['threads']} threads; {rows[0]['date']}.\n"


def encoders() -> str:
    """Encoders without an importance matrix."""
    return _encoders(rows_of("encoders"))


def weighted() -> str:
    """Encoders with an importance matrix."""
    return _encoders(rows_of("encoders_weighted"))


def _encoders(rows: list[dict[str, str]]) -> str:
    """A table for each kind of CPU that encoders were compiled for."""
    kinds = dict.fromkeys((r["compiled_for"], r["cpu"]) for r in rows)
    return "\n".join(_encoders_of([r for r in rows if (r["compiled_for"], r["cpu"]) == kind]) for kind in kinds)


def _encoders_of(rows: list[dict[str, str]]) -> str:
    """Ours, llama.cpp's and their ratio per format."""
    lines = [
        "| format | ours, M weights/s | llama.cpp | ratio (lowest to highest turn) | ratio to the same C, this kind |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['format']} | {float(r['ours_mweights_per_s']):.0f} | {r['llama_cpp_mweights_per_s']}"
            f" | {r['ratio']} ({r['ratio_min']} to {r['ratio_max']}) | {r['ratio_native']} |"
        )
    first = rows[0]
    machine = f"{first['cpu']}, compiled for {first['compiled_for']}"
    versions = f"{first['date']}, Numba {first['numba']}, llama.cpp {first['llama_cpp']}"
    return "\n".join(lines) + f"\n\nMachine: {machine}; {versions}.\n"


def engine() -> str:
    """Tokens per second of ours and of llama.cpp per file, and geometric means."""
    rows = rows_of("engine")
    lines = [
        "| file | prefill, tokens/s | llama.cpp | ratio | decode, tokens/s | llama.cpp | ratio | of the limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [r["quant"]]
        for kind in ("prefill", "decode"):
            cells += [r[kind], r[f"{kind}_llama_cpp"], r[f"{kind}_ratio"]]
        lines.append(f"| {' | '.join(cells)} | {float(r['decode_of_limit']):.0%} |")
    prefill, decode, share = (_mean(rows, name) for name in ("prefill_ratio", "decode_ratio", "decode_of_limit"))
    lines.append(f"| geometric mean of 16 | | | {prefill:.2f} | | | {decode:.2f} | {share:.0%} |")
    return "\n".join(lines) + f"\n\nMachine: {rows[0]['cpu']}; {rows[0]['threads']} threads; {rows[0]['date']}.\n"


def _mean(rows: list[dict[str, str]], column: str) -> float:
    """Geometric mean over the quantized files."""
    return math.exp(statistics.mean(math.log(float(r[column])) for r in rows if r["quant"] != "F16"))


def kinds() -> str:
    """Both compiled for other kinds of CPU: tokens per second and ratios, a block of columns for each kind."""
    rows = rows_of("engine_kinds")
    cpus = list(dict.fromkeys(r["compiled_for"] for r in rows))
    of_cpu = {cpu: {r["quant"]: r for r in rows if r["compiled_for"] == cpu} for cpu in cpus}
    titles = [f"{cpu}: {kind} | llama.cpp | ratio" for cpu in cpus for kind in ("prefill", "decode")]
    lines = [f"| file | {' | '.join(titles)} |", "|---" * (1 + 3 * len(titles)) + "|"]
    for quant in dict.fromkeys(r["quant"] for r in rows):
        cells = [quant]
        for cpu in cpus:
            r = of_cpu[cpu].get(quant)
            for kind in ("prefill", "decode"):
                cells += [r[kind], r[f"{kind}_llama_cpp"], r[f"{kind}_ratio"]] if r else [""] * 3
        lines.append(f"| {' | '.join(cells)} |")
    means = [_mean(list(of_cpu[cpu].values()), f"{kind}_ratio") for cpu in cpus for kind in ("prefill", "decode")]
    lines.append(f"| geometric mean without F16 | {' | '.join(f'| | {mean:.2f}' for mean in means)} |")
    firsts = [next(iter(of_cpu[cpu].values())) for cpu in cpus]
    machines = "; ".join(f"{r['compiled_for']}: {r['cpu']}, {r['threads']} threads, {r['date']}" for r in firsts)
    return "\n".join(lines) + f"\n\nMachines: {machines}.\n"


def threads() -> str:
    """One file with more and more threads: tokens per second and ratios."""
    lines = [
        "| file, processor | threads | prefill, tokens/s | llama.cpp | ratio | decode, tokens/s | llama.cpp | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows_of("engine_threads"):
        cells = [f"{r['quant']}, {r['cpu']}", r["threads"]]
        for kind in ("prefill", "decode"):
            cells += [r[kind], r[f"{kind}_llama_cpp"], r[f"{kind}_ratio"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def more() -> str:
    """What else was measured of files that run."""
    rows = [f"| {r['fact']} | {r['value']} |" for r in rows_of("engine_more")]
    return "\n".join(["| measured | value |", "|---|---|", *rows, ""])


def batch() -> str:
    """One row for each processor and quant."""
    lines = [
        "| processor, threads | quant | texts | one by one | side by side | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['cpu']}, {r['threads']} | {r['quant']} | {r['requests']} | {float(r['one_by_one_s']):.0f} s"
        f" | {float(r['batch_s']):.0f} s | {float(r['ratio']):.1f} |"
        for r in rows_of("batch")
    ]
    return "\n".join([*lines, ""])


def serve() -> str:
    """Eight clients of both servers, a block for each processor and quant."""
    lines = ["| measured | pythia serve | llama-server |", "|---|---|---|"]
    for r in rows_of("serve"):
        lines += [
            f"| {r['quant']}, 8 clients, tokens/s; {r['cpu']}, {r['threads']} threads"
            f" | {r['pythia_tokens_per_s']} | {r['llama_tokens_per_s']} |",
            f"| the same, share of `pythia bench --batch 8`, {r['bench_tokens_per_s']} tokens/s"
            f" | {float(r['share_of_bench']):.0%} | |",
            "| longest wait of six streams for a token while 1,900 tokens are read"
            f" | {r['pythia_longest_wait_s']} s | {r['llama_longest_wait_s']} s |",
            "| first token of a prompt of 16 tokens meanwhile"
            f" | {r['pythia_short_prompt_s']} s | {r['llama_short_prompt_s']} s |",
        ]
    return "\n".join([*lines, ""])


def measuring() -> str:
    """What measuring 16 files takes, and tasks of lm_eval; rows of one processor one after the other."""
    wholes, rows = [r for r in rows_of("measure") if r["part"]], rows_of("lm_eval")
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
    """A row of measure.csv or of lm_eval.csv."""
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
