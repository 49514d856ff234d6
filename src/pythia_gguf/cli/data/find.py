"""`pythia data find`: where a text stands in training data, and at which steps it was seen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.data_options import batch_option, seed_option, tokenizer_option
from pythia_gguf.cli.sights import HIT_HEADER, SIGHT_HEADER, hit_json, hit_row, sight_json, sight_row
from pythia_gguf.cli.tables import print_table
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.data.finding import Occurrences

SCHEMA_VERSION = 1


@click.command("find", cls=Command)
@click.argument("prefix")
@click.argument("text")
@batch_option
@seed_option
@click.option("--max-hits", "limit", type=int, default=100, show_default=True, help="Rows or places to show.")
@click.option("--ids", "as_ids", is_flag=True, help='TEXT is ids: "510 3158".')
@tokenizer_option
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    prefix: str,
    text: str,
    batch: int,
    seed: int | None,
    limit: int,
    as_ids: bool,
    tokenizer: str | None,
    output_format: str,
) -> None:
    """Find TEXT in PREFIX: how often it is there, and each row of training that shows it, with step and source.

    PREFIX has an index (pythia data index). Where it also has an order (pythia data order), or holds rows that
    pythia data pull has fetched, steps are known, and the published checkpoints around them. Every epoch sees a
    document once. A row that ends inside of TEXT shows a part of it, and another row the rest: both are told.

    The tokens of TEXT are looked for, and those of TEXT behind a space: a word has one token at the beginning of a line
    and another one inside of it. TEXT should end where a word ends.

    \b
    pythia data find corpus "the quick brown fox"
    pythia data find first-steps --ids "510 3158" --output-format json
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.finding import Finder
    from pythia_gguf.data.text import find_tokenizer, spellings

    if as_ids:
        refuse_given("tokenizer", "where TEXT is ids")
    looked_for = [(text, _ids_in(text))] if as_ids else spellings(find_tokenizer(prefix, tokenizer), text)
    with make_progress() as progress, Finder(prefix, batch=batch, seed=seed, progress=progress) as finder:
        if not finder.n_epochs:
            refuse_given("batch", "where PREFIX has no order")
        found = [finder.occurrences(ids, limit) for _, ids in looked_for]
        n_epochs = finder.n_epochs
    told = _summary(text, looked_for, found)
    hits = sorted((hit for each in found for hit in each.hits), key=lambda hit: hit.position)[:limit]
    sights = sorted((s for each in found for s in each.sights), key=lambda s: (s.row, s.start))[:limit]
    if output_format == "json":
        told |= {"n_epochs": n_epochs, "batch": batch if n_epochs else None}
        told |= {"hits": list(map(hit_json, hits)), "sights": [sight_json(sight, batch) for sight in sights]}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | told))
        return
    for spelling in told["spellings"]:
        n, text, n_tokens = spelling["n_hits"], spelling["text"], len(spelling["ids"])
        click.echo(f"{_number(n, 'place')} of {text!r}, {_number(n_tokens, 'token')}")
    if not n_epochs:
        click.echo("There is no order, so no steps are known. Make one: pythia data order")
        print_table(HIT_HEADER, list(map(hit_row, hits)), right=(0, 1, 2))
        return
    if told["n_whole"] is None:
        click.echo("Not all places were looked at, so these rows are not the first of all")
    else:
        whole, cut = _number(told["n_whole"], "row"), _number(told["n_cut"], "row")
        click.echo(f"seen whole in {whole}, in part in {cut}")
    print_table(SIGHT_HEADER, [sight_row(sight, batch) for sight in sights], right=(0, 1, 2))


def _number(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _ids_in(text: str) -> list[int]:
    words = re.findall(r"[^\s,]+", text)
    if not words or not all(re.fullmatch(r"\d{1,5}", word) for word in words):
        raise UsageError(Argument("text"), f" must be ids as in '510 3158', got {text!r}")
    return [int(word) for word in words]


def _summary(text: str, looked_for: list[tuple[str, list[int]]], found: list[Occurrences]) -> dict[str, Any]:
    """What was looked for, and how much there is of it; None where not all places were looked at."""
    pairs = zip(looked_for, found, strict=True)
    told = {"text": text, "spellings": [{"text": t, "ids": ids, "n_hits": each.n_hits} for (t, ids), each in pairs]}
    sums = {}
    for name in ("n_hits", "n_whole", "n_cut"):
        numbers = [getattr(each, name) for each in found]
        sums[name] = None if None in numbers else sum(numbers)
    return told | sums
