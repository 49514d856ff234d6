"""`pythia bench`: how fast a model runs here."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.model_options import LoadOptions, described, model_options
from pythia_gguf.json_file import json_text

SCHEMA_VERSION = 1


@click.command("bench", cls=Command)
@model_options
@click.option(
    "--prompt", "n_prompt", type=int, help="Tokens of the prompt that is read.  [default: 512, or all of the context]"
)
@click.option("--tokens", "n_tokens", type=int, default=64, show_default=True, help="Tokens that are written.")
@click.option("--depth", type=int, default=0, show_default=True, help="Tokens before them.")
@click.option("--batch", "n_sequences", type=int, default=1, show_default=True, help="Sequences written side by side.")
@click.option("--repeats", type=int, default=3, show_default=True, help="Runs; their median counts.")
def command(
    model: str,
    n_prompt: int | None,
    n_tokens: int,
    depth: int,
    n_sequences: int,
    repeats: int,
    loading: LoadOptions,
    output_format: str,
) -> None:
    """Measure tokens per second: reading a prompt (prefill) and writing (decode).

    \b
    pythia bench pythia-410m.Q4_K_M.gguf
    pythia bench pythia-410m.Q4_K_M.gguf --depth 1900 --batch 8 --output-format json
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.engine.speed import measure_speed

    started = time.perf_counter()
    loaded = loading.load(model)
    load_s = time.perf_counter() - started
    n_prompt = min(512, loaded.n_context) if n_prompt is None else n_prompt
    with make_progress() as progress:
        speed = measure_speed(
            loaded,
            n_prompt=n_prompt,
            n_tokens=n_tokens,
            depth=depth,
            n_sequences=n_sequences,
            repeats=repeats,
            progress=progress,
        )
    result = {
        "schema_version": SCHEMA_VERSION,
        **asdict(speed),
        "load_s": load_s,
        "rss_bytes": _resident_bytes(),
        "weights_bytes": loaded.bytes_per_step,
        "prompt": n_prompt,
        "tokens": n_tokens,
        "depth": depth,
        "batch": n_sequences,
        **described(loaded),
    }
    if output_format == "json":
        click.echo(json_text(result))
        return
    from pythia_gguf.cli.tables import print_columns

    rss, n_bytes = result["rss_bytes"], result["weights_bytes"]
    written = f"{n_tokens} tokens, depth {depth}, batch {n_sequences}"
    print_columns(
        [
            ("prefill", f"{speed.prefill_tokens_per_s:,.1f} tokens/s", f"{result['prompt']} tokens"),
            ("decode", f"{speed.decode_tokens_per_s:,.1f} tokens/s", written),
            ("weights read", f"{speed.weights_bytes_per_s / 1e9:.1f} GB/s", f"{n_bytes:,} bytes a step"),
            ("loading", f"{load_s:.2f} s", f"{loaded.threads} threads"),
            ("memory", "unknown" if rss is None else f"{rss / 1e6:,.0f} MB", f"{loaded.activations} activations"),
        ]
    )


def _resident_bytes() -> int | None:
    """Memory of this process now; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
