"""`pythia data stats`: what is in some data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text


@click.command("stats", cls=Command)
@click.argument("corpus", metavar="PREFIX|CORPUS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(corpus: tuple[Path, ...], output_format: str) -> None:
    """Show documents, tokens or bytes by source, and how long documents are.

    PREFIX names ids, as pythia data tokenize or pythia data pull has made them; for those the ends of documents are
    counted too. Files of text are read as pythia data tokenize reads them, and broken lines are counted.

    \b
    pythia data stats corpus
    pythia data stats texts/*.jsonl train.jsonl.zst
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.documents import is_corpus
    from pythia_gguf.data.statistics import SCHEMA_VERSION, text_statistics, token_statistics

    is_prefix = len(corpus) == 1 and not is_corpus(corpus[0])
    with make_progress() as progress:
        if is_prefix:
            told = token_statistics(corpus[0], progress=progress)
        else:
            told = text_statistics(corpus, progress=progress)
    if output_format == "json":
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | told))
    elif is_prefix:
        _print_tokens(told)
    else:
        _print_texts(told)


def _print_tokens(told: dict[str, Any]) -> None:
    kind = told["kind"]
    rows = [[s["name"] or "(not said)", f"{s['n']:,}", f"{s['n_tokens']:,}"] for s in told["sources"]]
    rows.append(["all", f"{told['n']:,}", f"{told['n_tokens']:,}"])
    print_table(["source", kind, "tokens"], rows, right=(1, 2))
    _print_lengths(told["tokens"], "tokens", kind)
    if told["eod_id"] is None:
        click.echo("the tokenizer has no token that ends documents")
    else:
        click.echo(f"{told['n_eod']:,} tokens are the end of a document, id {told['eod_id']}")
    click.echo(f"{told['n_bytes']:,} bytes")


def _print_texts(told: dict[str, Any]) -> None:
    rows = [[s["name"] or "(not said)", f"{s['n']:,}", f"{s['n_bytes']:,}"] for s in told["sources"]]
    rows.append(["all", f"{told['n']:,}", f"{told['n_bytes']:,}"])
    print_table(["source", "documents", "bytes of text"], rows, right=(1, 2))
    _print_lengths(told["bytes"], "bytes", "documents")
    if told["n_empty"]:
        click.echo(f"{told['n_empty']:,} documents have no text")
    if told["n_broken"]:
        click.echo(f"{told['n_broken']:,} lines are no document")
    for line in told["broken"]:
        click.echo(f"{line['file']}: line {line['line']}: {line['why']}")


def _print_lengths(lengths: dict[str, float] | None, unit: str, kind: str) -> None:
    if lengths is not None:
        middle = f"median {_figure(lengths['median'])}, mean {_figure(lengths['mean'])}"
        click.echo(f"{kind} have {lengths['min']:,} to {lengths['max']:,} {unit}: {middle}")


def _figure(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
