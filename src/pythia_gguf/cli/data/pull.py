"""`pythia data pull`: published rows of some steps onto this machine."""

from __future__ import annotations

import re

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text


@click.command("pull", cls=Command)
@click.argument("name")
@click.option("--steps", required=True, metavar="A:B", help="The first and the last step.")
@click.option("-o", "--out", required=True, metavar="PREFIX", help="Names of the files, without what follows the dot.")
@click.option("--batch", type=int, default=1024, show_default=True, help="Rows of a step.")
@click.option("--force", is_flag=True, help="Replace other files of that prefix.")
@click.option("--endpoint", metavar="URL", help="Another hub.  [default: HF_ENDPOINT, else huggingface.co]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str, steps: str, out: str, batch: int, force: bool, endpoint: str | None, output_format: str) -> None:
    """Fetch the rows that some steps of Pythia saw, in the order of training; NAME is pile or pile-deduped.

    Both steps of A:B are part of it. PREFIX.bin and PREFIX.idx hold the rows as GPT-NeoX reads them; PREFIX.rows.json
    says which they are and has a SHA-256 for each step. A step of 1,024 rows has 4,196,352 bytes. Running again goes on
    where a run was ended.

    \b
    pythia data pull pile-deduped --steps 1:10 -o first-steps
    pythia data pull pile --steps 143000:143000 -o last-step
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.pulled import pull_rows
    from pythia_gguf.errors import Argument, UsageError

    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", steps)
    if match is None:
        raise UsageError(Argument("steps"), f" must be two numbers as in 1:10, got {steps!r}")
    with make_progress() as progress:
        told = pull_rows(
            name,
            out,
            first_step=int(match[1]),
            last_step=int(match[2]),
            batch=batch,
            endpoint=endpoint,
            force=force,
            progress=progress,
        )
    if output_format == "json":
        click.echo(json_text(told))
    else:
        click.echo(f"{len(told['sha256_of_steps']) * batch:,} rows of {told['row_tokens']:,} tokens in {out}.bin")
