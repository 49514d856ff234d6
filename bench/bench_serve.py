"""Eight clients of `pythia serve` beside `pythia bench --batch 8` and llama-server, same file and load, in one run.

    python bench/bench_serve.py [--requests 48] [--threads 2] [--quant Q4_K_M] [--turns 2]    about half an hour
    python bench/bench_serve.py --without-llama --layers 2 --requests 16 --turns 1            a quick look
    python bench/bench_serve.py --save          also writes bench/results/serve.csv

A random model of the shape of Pythia 410M; prompts of 16 token ids, 128 tokens written and streamed, top-k 50.
llama-server (llama.cpp 0c1e57098, built from the sdist of llama-cpp-python) has 8 slots, continuous batching, as many
threads, and the best of four settings. They take turns, each alone. Then, of both servers: the longest wait of six
streams for a token while a prompt of 1,900 tokens is read, and how long a short prompt that comes meanwhile waits for
its first token. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench"), str(ROOT / "scripts")]

from bench_encoders import cpu  # noqa: E402
from bench_engine import make_files  # noqa: E402
from bench_press import write_table  # noqa: E402
from golden_tools import tools  # noqa: E402

N_CLIENTS, N_PROMPT, N_WRITTEN, N_LONG = 8, 16, 128, 1_900
LLAMA_FLAGS = [("-fa", fa, "-ub", ub) for fa in ("on", "off") for ub in ("128", "512")]
VOCAB = 50_254  # ids below the special tokens


def main() -> None:
    """Measure, print, and save when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quant", default="Q4_K_M")
    parser.add_argument("--file", type=Path, help="a model that is there already")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--without-llama", action="store_true")
    parser.add_argument("--save", action="store_true", help="write bench/results/serve.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        file = options.file or make_files(Path(work), [options.quant], options.layers)[options.quant]
        row = measured(file, options)
    row = {"quant": options.quant, **row}
    print(f"{cpu()}, {options.threads} threads\n" + ", ".join(f"{name} {value}" for name, value in row.items()))
    if options.save:
        write_table("serve.csv", [row], options.threads, key=("cpu", "threads", "quant"))
    print(json.dumps({"schema_version": 1, "cpu": cpu(), "serve": row}))


def measured(file: Path, options: argparse.Namespace) -> dict[str, float]:
    """Medians over turns, and how the two servers compare."""
    servers = [Pythia] if options.without_llama else [Pythia, Llama]
    if not options.without_llama:
        Llama.flags = max(LLAMA_FLAGS, key=lambda flags: rate_with(flags, file, options.threads))
        print("llama-server is fastest with", *Llama.flags)
    rates: dict[str, list[float]] = {"bench": [], **{server.name: [] for server in servers}}
    waits: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
    for _ in range(options.turns):
        rates["bench"].append(bench(file, options.threads))
        for server in servers:
            with server.running(file, options.threads) as port:
                load(server, port, N_CLIENTS)
                rates[server.name].append(load(server, port, options.requests))
                waits[server.name].append(stalls(server, port))
    row = {f"{name}_tokens_per_s": round(statistics.median(found), 1) for name, found in rates.items()}
    for name, found in waits.items():
        row[f"{name}_longest_wait_s"] = round(max(gap for gap, _ in found), 3)
        row[f"{name}_short_prompt_s"] = round(max(first for _, first in found), 3)
    row["share_of_bench"] = round(row["pythia_tokens_per_s"] / row["bench_tokens_per_s"], 3)
    if not options.without_llama:
        row["ratio_to_llama"] = round(row["pythia_tokens_per_s"] / row["llama_tokens_per_s"], 3)
    return row


class Pythia:
    """Our server."""

    name = "pythia"
    path = "/v1/completions"

    @staticmethod
    @contextlib.contextmanager
    def running(file: Path, threads: int) -> Iterator[int]:
        """Its port."""
        program = [sys.executable, "-m", "pythia_gguf", "serve", str(file), "--threads", str(threads), "--port", "0"]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().rsplit(":", 1)[1])
        finally:
            process.kill()
            process.communicate()

    @staticmethod
    def body(file: str, ids: Sequence[int], n_tokens: int, seed: int) -> dict[str, Any]:
        """A request."""
        options = {"top_k": 50, "seed": seed, "stream": True, "logit_bias": {"0": -100}}
        return {"model": file, "prompt": list(ids), "max_tokens": n_tokens, **options}


class Llama:
    """llama-server."""

    name = "llama"
    path = "/completion"
    flags = ("-fa", "on")

    @staticmethod
    @contextlib.contextmanager
    def running(file: Path, threads: int) -> Iterator[int]:
        """Its port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = [tools(("llama-server",)) / "llama-server", "-m", file, "-np", N_CLIENTS, "-c", N_CLIENTS * 2048]
        program += ["-cb", "-t", threads, "-tb", threads, "--port", port, "--no-webui", *Llama.flags]
        process = subprocess.Popen(
            [str(word) for word in program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not is_ready(port):
                time.sleep(0.2)
            yield port
        finally:
            process.kill()
            process.communicate()

    @staticmethod
    def body(file: str, ids: Sequence[int], n_tokens: int, seed: int) -> dict[str, Any]:
        """A request."""
        options = {"top_k": 50, "top_p": 1.0, "min_p": 0.0, "seed": seed, "stream": True, "ignore_eos": True}
        return {"prompt": list(ids), "n_predict": n_tokens, "cache_prompt": False, "temperature": 1.0, **options}


def rate_with(flags: tuple[str, ...], file: Path, threads: int) -> float:
    """Tokens per second of llama-server with some of LLAMA_FLAGS."""
    Llama.flags = flags
    with Llama.running(file, threads) as port:
        return load(Llama, port, 2 * N_CLIENTS)


def is_ready(port: int) -> bool:
    """Whether a server answers."""
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def bench(file: Path, threads: int) -> float:
    """Tokens per second of `pythia bench` with as many sequences."""
    program = [
        sys.executable,
        "-m",
        "pythia_gguf",
        "bench",
        str(file),
        "--batch",
        str(N_CLIENTS),
        "--output-format",
        "json",
    ]
    program += ["--threads", str(threads), "--depth", str(N_PROMPT), "--tokens", str(N_WRITTEN)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    rate: float = json.loads(done.stdout)["decode_tokens_per_s"]
    return rate


def load(server: type[Pythia | Llama], port: int, n_requests: int) -> float:
    """Tokens per second over all requests of eight clients."""
    started = time.perf_counter()
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        list(pool.map(lambda i: times(server, port, prompt(i, N_PROMPT), N_WRITTEN, i), range(n_requests)))
    return n_requests * N_WRITTEN / (time.perf_counter() - started)


def stalls(server: type[Pythia | Llama], port: int) -> tuple[float, float]:
    """The longest wait of six streams for a token while a long prompt is read, and of a short prompt for its first."""
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        streams = [pool.submit(times, server, port, prompt(i, N_PROMPT), 400, i) for i in range(6)]
        time.sleep(2.0)
        began = time.perf_counter()
        long = pool.submit(times, server, port, prompt(100, N_LONG), 1, 1)
        time.sleep(0.3)
        asked = time.perf_counter()
        short = times(server, port, prompt(101, 16), 4, 1)
        over = long.result()[0]
        gaps = [
            later - sooner
            for stream in streams
            for sooner, later in zip(stream.result(), stream.result()[1:], strict=False)
            if later > began and sooner < over
        ]
    return max(gaps), short[0] - asked


def times(server: type[Pythia | Llama], port: int, ids: Sequence[int], n_tokens: int, seed: int) -> list[float]:
    """When each event of a stream came."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    name = model_name(port) if server is Pythia else ""
    body = json.dumps(server.body(name, ids, n_tokens, seed))
    connection.request("POST", server.path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    found = []
    while line := response.readline():
        if line.startswith(b"data: {"):
            found.append(time.perf_counter())
    return found


_NAMES: dict[int, str] = {}
_ONE = threading.Lock()


def model_name(port: int) -> str:
    """The name of the only model of a server of ours."""
    with _ONE:
        if port not in _NAMES:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/v1/models")
            _NAMES[port] = json.loads(connection.getresponse().read())["data"][0]["id"]
        return _NAMES[port]


def prompt(seed: int, n: int) -> list[int]:
    """Random ids."""
    ids: list[int] = np.random.default_rng(seed).integers(1, VOCAB, n).tolist()
    return ids


if __name__ == "__main__":
    main()
