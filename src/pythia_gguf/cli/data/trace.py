"""`pythia data trace`: the longest spans of a text that stand in training data."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.data_options import batch_option, seed_option, tokenizer_option
from pythia_gguf.cli.sights import hit_json, sight_json, sight_row
from pythia_gguf.cli.tables import print_table
from pythia_gguf.errors import one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.data.tracing import Span

SCHEMA_VERSION = 1
_HEADER = ("tokens", "places", "first step", "row", "source", "checkpoints", "text")


@click.command("trace", cls=Command)
@click.argument("prefix")
@click.argument("text")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A page of HTML to write, which needs no network.")
@click.option("--min-tokens", type=int, default=8, show_default=True, help="Of a span.")
@batch_option
@seed_option
@tokenizer_option
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    prefix: str,
    text: str,
    out: Path | None,
    min_tokens: int,
    batch: int,
    seed: int | None,
    tokenizer: str | None,
    output_format: str,
) -> None:
    """Show the longest spans of TEXT that stand in PREFIX, with how often, and the step, row and source of the first.

    PREFIX has an index (pythia data index), as for pythia data find. No span lies inside another one. TEXT may be "-":
    it is read from stdin then, without the one line end that a file ends with.

    \b
    pythia generate pythia-70m:Q8_0 "Call me" --no-echo | pythia data trace corpus - -o trace.html
    pythia data trace corpus "We hold these truths to be self-evident" --min-tokens 4
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.finding import Finder
    from pythia_gguf.data.text import find_tokenizer, placed_ids
    from pythia_gguf.data.trace_page import trace_page
    from pythia_gguf.data.tracing import trace
    from pythia_gguf.files import check_file_place, write_text
    from pythia_gguf.text_file import decode_text

    if out is not None:
        check_file_place(out)
    if text == "-":
        text = re.sub(r"\r?\n\Z", "", decode_text(sys.stdin.buffer.read(), "-"))
    ids, offsets = placed_ids(find_tokenizer(prefix, tokenizer), text)
    with make_progress() as progress, Finder(prefix, batch=batch, seed=seed, progress=progress) as finder:
        if not finder.n_epochs:
            refuse_given("batch", "where PREFIX has no order")
        spans = trace(finder, ids, min_tokens=min_tokens, progress=progress)
    quotes = [text[offsets[span.start][0] : offsets[span.end - 1][1]] for span in spans]
    if out is not None:
        write_text(out, trace_page(text, offsets, spans, prefix=prefix, batch=batch))
    if output_format == "json":
        told = {"schema_version": SCHEMA_VERSION, "text": text, "ids": ids, "min_tokens": min_tokens}
        entries = [_entry(span, quote, batch) for span, quote in zip(spans, quotes, strict=True)]
        click.echo(json_text(told | {"spans": entries}))
        return
    rows = [_row(span, quote, batch) for span, quote in zip(spans, quotes, strict=True)]
    print_table(_HEADER, rows, right=(0, 1, 2, 3))
    if out is not None:
        click.echo(out)


def _entry(span: Span, quote: str, batch: int) -> dict[str, Any]:
    there = span.occurrences
    counts = {"n_hits": there.n_hits, "n_whole": there.n_whole, "n_cut": there.n_cut}
    firsts = {"hit": hit_json(there.hits[0]), "sight": sight_json(there.sights[0], batch) if there.sights else None}
    return {"start": span.start, "end": span.end, "text": quote} | counts | firsts


def _row(span: Span, quote: str, batch: int) -> list[str]:
    there = span.occurrences
    step, row, source, around = "-", "-", there.hits[0].source or "-", "-"
    if there.sights:
        step, row, *_, source, around = sight_row(there.sights[0], batch)
    return [str(span.end - span.start), f"{there.n_hits:,}", step, row, source, around, one_line(quote, 80)]
