"""The engine against llama.cpp: every distinct file and F16 of a random 410M-shaped model, in one run, taking turns.

    python bench/bench_engine.py [--turns 3] [--save]          about 25 minutes; builds llama.cpp's tools the first time
    python bench/bench_engine.py --quants Q4_K_M --turns 1
    python bench/bench_engine.py --compiled-for haswell --save   both as compiled for another kind of CPU
    python bench/bench_engine.py --threads 1,2,4,8,16 --quants Q4_K_M --save

llama.cpp's side is llama-bench of the tree in llama-cpp-python 0.3.36, built by cmake for this CPU but for AMX, with
which old compilers break it; for another kind of CPU by the names of its instructions. It is taken at its best of flash
attention on and off and ubatch 128 and 512, found in the first turn. Both get the same threads. The limit of writing is
the bytes of weights that a token needs (the file without token_embd) over the bandwidth of the same threads, measured
before and after each file. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench"), str(ROOT / "scripts")]

from bandwidth import read_bandwidth  # noqa: E402
from bench_encoders import compiled_for, cpu  # noqa: E402
from bench_press import DISTINCT, N_TOKENS, SHAPES, write_table  # noqa: E402
from golden_tools import OPTIONS_OF, tools  # noqa: E402

from cpu_kinds import RUNNABLE, environment  # noqa: E402
from press.toy_gguf import model_metadata, write_gguf  # noqa: E402
from pythia_gguf import open_gguf, quantize  # noqa: E402

FLAGS = [("0", "128"), ("0", "512"), ("1", "128"), ("1", "512")]
PROMPT, TOKENS, DEPTH, BATCH = 512, 64, 1900, 8


def main() -> None:
    """Measure, print, and save when asked to."""
    options = parse()
    quants = options.quants.split(",") if options.quants else [*DISTINCT, "F16"]
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        files = make_files(Path(work), quants)
        is_whole = not options.quants and not options.compiled_for and len(options.threads) == 1
        rows: list[dict] = []
        for threads in options.threads:
            named = {"compiled_for": options.compiled_for or compiled_for(), "threads": threads}
            for r in measured({quant: files[quant] for quant in quants}, options.turns, threads, options.compiled_for):
                rows.append(named | r)
                if options.save and not is_whole:  # each row when it is there: hours may not end as they should
                    table = "engine_kinds.csv" if options.compiled_for else "engine_threads.csv"
                    write_table(table, rows[-1:], threads, key=("compiled_for", "quant", "threads", "cpu"))
        facts = more(files, options.threads[0]) if is_whole else {}
    show(rows, facts)
    if options.save and is_whole:
        write_table("engine.csv", rows, options.threads[0])
        write_table(
            "engine_more.csv", [{"fact": name, "value": value} for name, value in facts.items()], options.threads[0]
        )
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "files": rows, "more": facts}))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=_numbers, default=[2], help="one number, or some separated by commas")
    parser.add_argument("--quants", help="some of them, separated by commas")
    parser.add_argument("--compiled-for", choices=[cpu for cpu in OPTIONS_OF if cpu in RUNNABLE], help="kind of CPU")
    parser.add_argument("--work", help="folder for 6 GB of files; default the system's")
    parser.add_argument("--save", action="store_true", help="write tables of bench/results")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def make_files(work: Path, quants: list[str], layers: int | None = None) -> dict[str, Path]:
    """Quant -> file, of a seeded random model."""
    source = random_model(work, layers)
    wanted = sorted({*quants, "Q4_K_M", "Q8_0"} - {"F16"})
    made = quantize(source, work / "out", quants=wanted).files
    os.sync()  # gigabytes that are still being written would slow down what is measured first
    return {f.quant: f.path for f in made} | {"F16": source}


def random_model(folder: Path, layers: int | None = None) -> Path:
    """A seeded random F16 file of the shape of Pythia 410M, with a tokenizer."""
    metadata = model_metadata(**SHAPES["410m"] | ({"n_layers": layers} if layers else {}))
    metadata["gptneox.context_length"] = np.uint32(2048)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    metadata["tokenizer.ggml.tokens"] = [*tokens, *(f"t{i}" for i in range(len(tokens), N_TOKENS))]
    metadata["tokenizer.ggml.token_type"] = np.ones(N_TOKENS, np.int32)
    return write_gguf(folder / "random.F16.gguf", metadata, seed=410, hard=False)


def ours(path: Path, threads: int, environment: Mapping[str, str] = os.environ, **options: int) -> dict[str, float]:
    """What `pythia bench` says."""
    command = [sys.executable, "-m", "pythia_gguf", "bench", str(path), "--threads", str(threads)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command += ["--output-format", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def theirs(path: Path, threads: int, flags: tuple[str, str], *, n_prompt: int, n_tokens: int, depth: int = 0,
           repeats: int = 2, kind: str | None = None) -> dict[str, float]:  # fmt: skip
    """Tokens per second of llama-bench: "prefill" and "decode"."""
    folder = tools(["llama-bench"], kind) if kind else tools()
    command = [folder / "llama-bench", "-m", path, "-t", threads, "-fa", flags[0], "-ub", flags[1], "-r", repeats]
    command += ["-p", n_prompt, "-n", n_tokens, "-d", depth, "-o", "json"]
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return {"prefill" if r["n_gen"] == 0 else "decode": r["avg_ts"] for r in json.loads(done.stdout)}


def measured(files: dict[str, Path], turns: int, threads: int, cpu: str | None) -> Iterator[dict[str, float | str]]:
    """A row for each file, in the last turn; cpu: the kind that both are compiled for, None for this one."""
    compiled_for = os.environ if cpu is None else environment(cpu)
    seen: dict[str, list[dict[str, float]]] = {quant: [] for quant in files}
    best: dict[str, dict[str, tuple[str, str]]] = {}
    for turn in range(turns):
        for quant, path in files.items():
            before = read_bandwidth(threads)
            mine = ours(path, threads, compiled_for)
            result = {"bandwidth": (before + read_bandwidth(threads)) / 2}
            result |= {"ours_prefill": mine["prefill_tokens_per_s"], "ours_decode": mine["decode_tokens_per_s"]}
            result["rss"] = mine["rss_bytes"]
            if quant not in best:
                sizes = {"n_prompt": PROMPT, "n_tokens": TOKENS, "repeats": 1}
                found = {f: theirs(path, threads, f, **sizes, kind=cpu) for f in FLAGS}
                best[quant] = {kind: max(FLAGS, key=lambda f, k=kind: found[f][k]) for kind in ("prefill", "decode")}
            for kind, n_prompt, n_tokens in (("prefill", PROMPT, 0), ("decode", 0, TOKENS)):
                told = theirs(path, threads, best[quant][kind], n_prompt=n_prompt, n_tokens=n_tokens, kind=cpu)
                result[f"theirs_{kind}"] = told[kind]
            seen[quant].append(result)
            print(f"turn {turn + 1} {quant:7}", {name: round(v) for name, v in result.items()}, flush=True)
            if turn == turns - 1:
                yield row(quant, path, seen[quant], best[quant])


def row(
    quant: str, path: Path, turns: list[dict[str, float]], best: dict[str, tuple[str, str]]
) -> dict[str, float | str]:
    """Medians over turns; ratios are those of one turn."""
    gguf = open_gguf(path)
    n_bytes = sum(t.n_bytes for name, t in gguf.tensors.items() if name != "token_embd.weight")

    def median(name: str) -> float:
        return statistics.median(t[name] for t in turns)

    made: dict[str, float | str] = {"quant": quant}
    for kind in ("prefill", "decode"):
        ratios = sorted(t[f"ours_{kind}"] / t[f"theirs_{kind}"] for t in turns)
        made |= {
            f"{kind}": round(median(f"ours_{kind}"), 1),
            f"{kind}_llama_cpp": round(median(f"theirs_{kind}"), 1),
            f"{kind}_ratio": round(statistics.median(ratios), 2),
            f"{kind}_ratio_min": round(ratios[0], 2),
            f"{kind}_ratio_max": round(ratios[-1], 2),
            f"{kind}_flags": "-fa {} -ub {}".format(*best[kind]),
        }
    share = statistics.median(t["ours_decode"] * n_bytes / t["bandwidth"] for t in turns)
    made |= {
        "weights_bytes": n_bytes,
        "bandwidth_gb_per_s": round(median("bandwidth") / 1e9, 1),
        "decode_limit": round(statistics.median(t["bandwidth"] / n_bytes for t in turns), 1),
        "decode_of_limit": round(share, 2),
        "decode_limited_by": "memory" if share > 0.8 else "processor",
        "rss_mb": round(median("rss") / 1e6),
    }
    return made


def more(files: dict[str, Path], threads: int) -> dict[str, float]:
    """What is measured on one or two files: depth, batches, drafts, busy processors, memory."""
    path = files["Q4_K_M"]
    facts: dict[str, float] = {}
    for quant in ("Q4_K_M", "Q8_0"):
        mine = ours(files[quant], threads, tokens=32, depth=DEPTH, repeats=2)["decode_tokens_per_s"]
        best = max(
            theirs(files[quant], threads, f, n_prompt=0, n_tokens=32, depth=DEPTH, repeats=1)["decode"]
            for f in (FLAGS[1], FLAGS[3])
        )
        facts[f"{quant} decode at depth {DEPTH}, tokens/s"] = mine
        facts[f"{quant} the same, ratio to llama.cpp"] = mine / best
    one, many = (ours(path, threads, batch=n, prompt=8)["decode_tokens_per_s"] for n in (1, BATCH))
    facts |= {"8 sequences, tokens/s": many, "8 sequences, ratio to one": many / one}
    facts |= busy(path)
    facts |= lookup(path, threads)
    facts |= first_token(path, threads)
    for kind in RUNNABLE:
        mine = ours(path, threads, environment(kind))
        for what in ("prefill", "decode"):
            facts[f"Q4_K_M as compiled for {kind}, {what}, tokens/s"] = mine[f"{what}_tokens_per_s"]
    return {name: round(value, 2) for name, value in facts.items()}


def busy(path: Path) -> dict[str, float]:
    """Decode with more threads than processors, and with one processor taken by another process; medians of three."""
    n = os.cpu_count() or 1

    def both(threads: int) -> tuple[float, float]:
        mine = ours(path, threads, prompt=8, tokens=32)["decode_tokens_per_s"]
        return mine, theirs(path, threads, FLAGS[3], n_prompt=0, n_tokens=32)["decode"]

    seen: list[tuple[float, ...]] = []
    for _ in range(3):
        alone = ours(path, 1, prompt=8, tokens=32)["decode_tokens_per_s"]
        quiet, crowded = both(n), both(2 * n)
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            shared = both(n)
        finally:
            hog.kill()
            hog.wait()
        ratios = (crowded[0] / quiet[0], crowded[1] / quiet[1], shared[0] / alone)
        seen.append((alone, *ratios, shared[0] / quiet[0], shared[1] / quiet[1]))
    names = (
        "one thread, tokens/s",
        f"{2 * n} threads on {n} processors: share of its speed with {n} threads",
        "the same, llama.cpp",
        f"{n} threads, one processor busy: share of its speed with 1 thread",
        f"{n} threads, one processor busy: share of its speed on idle processors",
        "the same, llama.cpp, on idle processors",
    )
    return {name: statistics.median(values) for name, values in zip(names, zip(*seen, strict=True), strict=True)}


def lookup(path: Path, threads: int) -> dict[str, float]:
    """Seconds a token without drafts over seconds with them, median of five pairs.

    Greedy text of a random model falls into a cycle; sampled at temperature 5 it never repeats itself.
    """
    from pythia_gguf.engine.generation import Generation
    from pythia_gguf.engine.model import load
    from pythia_gguf.engine.sampling import Sampling
    from pythia_gguf.engine.writing import WritingOptions

    model = load(path, threads=threads)
    prompt = np.random.default_rng(0).integers(0, N_TOKENS, 64).tolist()

    def seconds(sampling: Sampling, drafts: bool) -> float:
        generation = Generation(model, prompt, WritingOptions(max_tokens=200, lookup=drafts), sampling)
        for _ in generation:
            pass
        return generation.completion.timings.generate_s

    cycle, never = Sampling(temperature=0), Sampling(temperature=5, top_k=0, top_p=1, min_p=0)
    facts = {}
    for name, sampling in (("repetitive text", cycle), ("text that never repeats", never)):
        ratios = [seconds(sampling, False) / seconds(sampling, True) for _ in range(5)]
        facts[f"--lookup, {name}, ratio to plain"] = statistics.median(ratios)
    return facts


def first_token(path: Path, threads: int) -> dict[str, float]:
    """Seconds to the first token, of a prompt of one: from the shell, and from `load` in a process that has run one."""
    shell = [sys.executable, "-m", "pythia_gguf", "generate", str(path), "Hello", "--max-tokens", "1"]
    code = (
        "import sys, time, pythia_gguf\n"
        "for _ in range(4):\n"
        "    started = time.perf_counter()\n"
        "    pythia_gguf.load(sys.argv[1], threads=int(sys.argv[2])).generate('Hello', max_tokens=1)\n"
        "    print(time.perf_counter() - started)\n"
    )

    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([*shell, "--threads", str(threads)], check=True, capture_output=True)
        return time.perf_counter() - started

    told = subprocess.run([sys.executable, "-c", code, str(path), str(threads)], check=True, capture_output=True)
    return {
        "first token of a new process, from the shell, s": statistics.median(seconds() for _ in range(3)),
        "first token after load() begins, s": statistics.median(map(float, told.stdout.split()[1:])),
    }


def show(rows: list[dict[str, float | str]], facts: dict[str, float]) -> None:
    """The tables for people."""
    titles = ("prefill", "llama", "ratio", "decode", "llama", "ratio", "of limit")
    print(f"\n{'quant':8}{'threads':8}" + "".join(f"{title:>9}" for title in titles) + "  limited by")
    for r in rows:
        print(
            f"{r['quant']:8}{r['threads']:8}{r['prefill']:9}{r['prefill_llama_cpp']:9}{r['prefill_ratio']:9}{r['decode']:9}"
            f"{r['decode_llama_cpp']:9}{r['decode_ratio']:9}{r['decode_of_limit']:9}  {r['decode_limited_by']}"
        )
    for name in ("prefill_ratio", "decode_ratio", "decode_of_limit"):
        values = [float(r[name]) for r in rows if r["quant"] != "F16"]
        if values:
            print(f"{name}: geometric mean {math.exp(statistics.mean(map(math.log, values))):.2f}, least {min(values)}")
    for fact, value in facts.items():
        print(f"{fact}: {value}")


if __name__ == "__main__":
    main()
