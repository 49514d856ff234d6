"""Options that several commands on training data have."""

from __future__ import annotations

import click

tokenizer_option = click.option(
    "--tokenizer", help="A tokenizer.json, or a model: file, folder or name.  [default: beside PREFIX]"
)
batch_option = click.option("--batch", type=int, default=1024, show_default=True, help="Rows of a step.")
seed_option = click.option("--seed", type=int, help="Of the order, where PREFIX has several.")
