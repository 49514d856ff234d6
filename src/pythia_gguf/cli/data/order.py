"""`pythia data order`: the order in which GPT-NeoX would train on some documents."""

from __future__ import annotations

from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text

SCHEMA_VERSION = 1


@click.command("order", cls=Command)
@click.argument("prefix", type=click.Path(path_type=Path))
@click.option("--steps", type=int, required=True, help="Updates of the run. Pythia: 143000.")
@click.option("--batch", type=int, default=1024, show_default=True, help="Rows of an update.")
@click.option("--seed", type=int, default=1234, show_default=True)
@click.option("--context", type=int, default=2048, show_default=True, help="A row has one token more.")
@click.option("--force", is_flag=True, help="Build it anew where it is there already.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(prefix: Path, steps: int, batch: int, seed: int, context: int, force: bool, output_format: str) -> None:
    """Build the order of training of PREFIX.bin and PREFIX.idx as GPT-NeoX builds it, and keep it under its names.

    Three files appear beside them: which documents are read (doc_idx), where rows begin in them (sample_idx), and when
    each row is seen (shuffle_idx). GPT-NeoX takes them for its own.

    \b
    pythia data order corpus --steps 1000 --batch 32
    pythia data order pile_text_document --steps 143000
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.order import make_order

    with make_progress() as progress:
        order = make_order(prefix, steps=steps, batch=batch, seed=seed, context=context, force=force, progress=progress)
    if output_format == "json":
        facts = {"n_epochs": order.n_epochs, "n_rows": order.n_rows, "is_new": order.is_new}
        files = {part: str(path) for part, path in order.files.items()}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | facts | {"files": files}))
        return
    times = "once" if order.n_epochs == 1 else f"{order.n_epochs} times"
    click.echo(f"{order.n_rows:,} rows of {context + 1:,} tokens; each document is read {times}")
    click.echo(f"{steps:,} steps of {batch:,} rows see {steps * batch / order.n_rows:.1%} of them")
    for path in order.files.values():
        click.echo(path)
