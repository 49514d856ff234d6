"""`pythia data index`: sorts all places of tokens, so that any text is found at once."""

from __future__ import annotations

from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text


@click.command("index", cls=Command)
@click.argument("prefix", type=click.Path(path_type=Path))
@click.option(
    "--part-tokens", type=int, help="Sorted together; more are faster to search.  [default: what memory holds]"
)
@click.option("--force", is_flag=True, help="Make it anew where it is there already.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(prefix: Path, part_tokens: int | None, force: bool, output_format: str) -> None:
    """Sort the places of all tokens of PREFIX.bin by what follows them, for pythia data find and pythia data trace.

    PREFIX names documents, or rows that pythia data pull has fetched. PREFIX.suffixes.npy has four bytes for each
    token; sorting takes 20 bytes of memory for each, and files that do not fit are sorted in parts of whole documents.
    Running again goes on with the part where a run was ended; where the index is there already, every byte of it is
    checked.

    \b
    pythia data index corpus
    pythia data index first-steps --force
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.index import make_index

    with make_progress() as progress:
        told = make_index(prefix, part_tokens=part_tokens, force=force, progress=progress)
    if output_format == "json":
        click.echo(json_text(told))
        return
    n_parts = len(told["parts"])
    parts = "one part" if n_parts == 1 else f"{n_parts:,} parts"
    done = "sorted" if told["is_new"] else "were sorted already, and all sums are right"
    click.echo(f"{told['n_tokens']:,} tokens in {parts}: {done}")
