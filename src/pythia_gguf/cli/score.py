"""`pythia score`: log-likelihoods of continuations."""

from __future__ import annotations

import math

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.model_options import LoadOptions, described, encoding_option, model_options
from pythia_gguf.json_file import json_text

SCHEMA_VERSION = 1


@click.command("score", cls=Command)
@model_options
@click.option("--prompt", required=True, help="What comes before.")
@click.option("--continuation", required=True, multiple=True, metavar="TEXT", help="May be given several times.")
@encoding_option
def command(
    model: str,
    prompt: str,
    continuation: tuple[str, ...],
    encoding: str,
    loading: LoadOptions,
    output_format: str,
) -> None:
    """Log-likelihood of each continuation after the prompt, in nats.

    \b
    pythia score pythia-70m.Q8_0.gguf --prompt "The sky is" --continuation " blue" --continuation " green"
    """
    from pythia_gguf.cli.progress import make_progress

    loaded = loading.load(model)
    with make_progress() as progress:
        scores = loaded.score([(prompt, text) for text in continuation], encoding=encoding, progress=progress)
    rows = [
        {"continuation": text, "logprob": s.logprob, "n_tokens": s.n_tokens, "is_greedy": s.is_greedy}
        for text, s in zip(continuation, scores, strict=True)
    ]
    if output_format == "json":
        result = {"schema_version": SCHEMA_VERSION, "prompt": prompt, "encoding": encoding, "scores": rows}
        click.echo(json_text(result | described(loaded)))
        return
    from pythia_gguf.cli.tables import print_table

    best = max(s.logprob for s in scores)
    print_table(
        ("continuation", "logprob", "tokens", "greedy", "odds to the best"),
        [
            (
                repr(text),
                f"{s.logprob:.4f}",
                str(s.n_tokens),
                "yes" if s.is_greedy else "no",
                f"{math.exp(s.logprob - best):.3g}",
            )
            for text, s in zip(continuation, scores, strict=True)
        ],
        right=(1, 2, 4),
    )
    click.echo(f"{loaded.activations} activations, {loaded.gelu} GELU, {encoding} encoding")
