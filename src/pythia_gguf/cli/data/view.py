"""`pythia data view`: what a model saw at a step of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.data_options import batch_option, seed_option, tokenizer_option
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.data.rows import Rows
    from pythia_gguf.data.sources import Sources

SCHEMA_VERSION = 1


@click.command("view", cls=Command)
@click.argument("prefix")
@click.option("--step", type=int, required=True, help="The update that makes checkpoint N of checkpoint N - 1.")
@click.option("--row", type=int, help="One row of the step, from 0 on.  [default: all]")
@batch_option
@seed_option
@tokenizer_option
@click.option("--ids", "as_ids", is_flag=True, help="Ids in place of text.")
@click.option("--endpoint", metavar="URL", help="Another hub.  [default: HF_ENDPOINT, else huggingface.co]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    prefix: str,
    step: int,
    row: int | None,
    batch: int,
    seed: int | None,
    tokenizer: str | None,
    as_ids: bool,
    endpoint: str | None,
    output_format: str,
) -> None:
    """Show the rows that a step of training saw, as text.

    PREFIX names documents with an order (pythia data order) or rows that pythia data pull has fetched. pile and
    pile-deduped name what Pythia was trained on; of those, only the rows that are shown are fetched, 4,098 bytes each.

    Rows are counted from 0, steps from 1: step N sees rows BATCH (N - 1) to BATCH N - 1, and Pythia has 1,024 of them.
    Where it is known from which sources documents are, each part of a row is shown with its document and source.

    Three models of version 0 (160M, 410M, 1.4B) had 2,048, and their steps on the Hub are twice their updates, so their
    step2000 is --step 1000 --batch 2048.

    \b
    pythia data view pile-deduped --step 1 --row 0
    pythia data view corpus --step 3 --batch 32
    pythia data view rows --step 1000 --row 17 --ids
    """
    from pythia_gguf.data.rows import open_rows, read_step
    from pythia_gguf.data.sources import Sources
    from pythia_gguf.data.text import find_tokenizer, text_of

    if as_ids:
        refuse_given("tokenizer", "where ids are shown")
    rows = open_rows(prefix, seed=seed, endpoint=endpoint)
    sources = Sources(prefix)
    try:
        first, shown = read_step(rows, step, batch, row)
        documents = [_documents(rows, sources, i) for i in range(first, first + len(shown))]
    finally:
        rows.close()
        sources.close()
    library = None if as_ids else find_tokenizer(prefix, tokenizer, endpoint)
    entries: list[dict[str, Any]] = []
    for i, ids in enumerate(shown.tolist()):
        text = {} if library is None else {"text": text_of(library, ids)}
        entries.append({"row": first + i, "ids": ids} | text | documents[i])
    if output_format == "json":
        click.echo(json_text({"schema_version": SCHEMA_VERSION, "step": step, "batch": batch, "rows": entries}))
        return
    for entry in entries:
        click.echo(f"--- step {step}, row {entry['row']}")
        for part in entry.get("documents", ()) if sources.names else ():
            source = part["source"] or "source not said"
            click.echo(
                f"--- {part['n_tokens']} tokens from token {part['first']} of document {part['document']}: {source}"
            )
        click.echo(" ".join(map(str, entry["ids"])) if library is None else entry["text"])


def _documents(rows: Rows, sources: Sources, i: int) -> dict[str, Any]:
    """The documents of a row, where it is known which they are."""
    from pythia_gguf.data.order import OrderedRows

    if not isinstance(rows, OrderedRows):
        return {}
    parts = [
        {"document": document, "source": sources.of(document), "first": begin, "n_tokens": n}
        for document, begin, n in rows.documents_of(i)
    ]
    return {"documents": parts}
