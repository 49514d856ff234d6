"""Measuring the 16 files of a random 410M-shaped model: one `pythia measure` against llama-perplexity's passes.

    python bench/bench_measure.py [--save]                           about 40 minutes
    python bench/bench_measure.py --layers 2 --windows 4             a quick look

Both read the same 16,384 tokens in 32 windows of 512 and give perplexity and KL divergence from F16 of each file. Ours
is one run; theirs is one that writes F16's logits and one for each file, llama-perplexity of the tree in
llama-cpp-python 0.3.36, built by cmake for this CPU but for AMX, with which old compilers break it. It is taken at its
best of flash attention on and off and ubatch 128 and 512, found on Q4_K_M. Theirs runs half before and half after ours,
with the same threads; time is that of whole processes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench"), str(ROOT / "scripts")]

from bench_encoders import cpu  # noqa: E402
from bench_engine import FLAGS, make_files  # noqa: E402
from bench_press import DISTINCT, write_table  # noqa: E402
from golden_tools import tools  # noqa: E402

CONTEXT = 512
PYTHIA: list[object] = [sys.executable, "-m", "pythia_gguf"]


def main() -> None:
    """Measure, print, and save when asked to."""
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        files = make_files(work, DISTINCT, options.layers)
        text = work / "text"
        # The random model's tokens are bytes and pairs of them: more than enough.
        text.write_text((ROOT / "examples" / "nano" / "heldout.txt").read_text()[: 4 * CONTEXT * options.windows])
        rows = measured(files, text, options.windows, options.threads)
    for r in rows:
        print(r)
    if options.save:
        write_table("measure.csv", rows, options.threads, key=("cpu",))
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "rows": rows}))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a quick look")
    parser.add_argument("--work", help="folder for 8 GB of files; default the system's")
    parser.add_argument("--save", action="store_true", help="write bench/results/measure.csv")
    return parser.parse_args()


def measured(files: dict[str, Path], text: Path, windows: int, threads: int) -> list[dict[str, float | str]]:
    """Rows: the whole, then theirs by file."""
    logits = text.with_name("logits")

    def theirs(quant: str, flags: tuple[str, str], n: int = windows) -> float:
        command: list[object] = [tools() / "llama-perplexity", "-m", files[quant], "-f", text, "-c", CONTEXT]
        command += ["--chunks", n, "-t", threads, "-fa", flags[0], "-ub", flags[1], "--kl-divergence-base", logits]
        return seconds(command if quant == "F16" else [*command, "--kl-divergence"])

    seconds([*PYTHIA, "warmup"])
    quick = max(2, windows // 8)
    theirs("F16", FLAGS[0], quick)
    found = {flags: theirs("Q4_K_M", flags, quick) for flags in FLAGS}
    flags = min(found, key=found.__getitem__)
    half = len(DISTINCT) // 2
    theirs_s = {}
    for quant in ["F16", *DISTINCT[:half]]:
        theirs_s[quant] = theirs(quant, flags)
        print(f"theirs {quant:7} {theirs_s[quant]:.1f} s", flush=True)
    command = [*PYTHIA, "measure", *(files[q] for q in DISTINCT), "--reference"]
    command += [files["F16"], "--text", text, "--context", CONTEXT, "--chunks", windows, "--gelu", "tanh"]
    ours_s = seconds([*command, "--threads", threads, "-o", text.with_name("report.json")])
    report = json.loads(text.with_name("report.json").read_text())
    print(f"ours, all files {ours_s:.1f} s", flush=True)
    for quant in DISTINCT[half:]:
        theirs_s[quant] = theirs(quant, flags)
        print(f"theirs {quant:7} {theirs_s[quant]:.1f} s", flush=True)
    whole = sum(theirs_s.values())
    read = {f["quant"]: f["prefill_tokens_per_s"] for f in report["files"]}
    rows: list[dict[str, float | str]] = [
        {"file": "all", "ours_s": round(ours_s, 1), "theirs_s": round(whole, 1), "part": round(ours_s / whole, 3)}
    ]
    rows[0]["theirs_flags"] = "-fa {} -ub {}".format(*flags)
    for quant in DISTINCT:
        mine = windows * CONTEXT / read[quant]
        rows.append({"file": quant, "ours_s": round(mine, 1), "theirs_s": round(theirs_s[quant], 1), "part": "",
                     "theirs_flags": ""})  # fmt: skip
    rows.append(
        {"file": "F16 and rest", "ours_s": round(ours_s - sum(float(r["ours_s"]) for r in rows[1:]), 1),
         "theirs_s": round(theirs_s["F16"], 1), "part": "", "theirs_flags": ""}
    )  # fmt: skip
    return rows


def seconds(command: list[object]) -> float:
    """Of a whole process."""
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
