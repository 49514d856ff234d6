"""Options that several commands on training data have."""

from __future__ import annotations

import click

tokenizer_option = click.option(
    "--tokenizer", help="A tokenizer.json, or a model: file, folder or name.  [default: beside PREFIX]"
)
batch_option = click.option("--batch", type=int, default=1024, show_default=True, help="Rows of a step.")
broken_option = click.option(
    "--broken",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="Lines that are no document.",
)
processes_option = click.option("--processes", type=int, help="No byte depends on it.  [default: one for each CPU]")
seed_option = click.option("--seed", type=int, help="Of the order, where PREFIX has several.")
