"""`pythia data tokenize`: documents to the files of ids that models are trained on."""

from __future__ import annotations

from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.data_options import broken_option, processes_option
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text


@click.command("tokenize", cls=Command)
@click.argument("corpus", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tokenizer", required=True, help="A tokenizer.json, or a model: file, folder or name.")
@click.option("-o", "--out", required=True, metavar="PREFIX", help="Names of the files, without what follows the dot.")
@click.option("--eod", default="<|endoftext|>", show_default=True, metavar="TOKEN", help="Ends every document.")
@broken_option
@processes_option
@click.option("--force", is_flag=True, help="Replace other tokens of that prefix.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    corpus: tuple[Path, ...],
    tokenizer: str,
    out: str,
    eod: str,
    broken: str,
    processes: int | None,
    force: bool,
    output_format: str,
) -> None:
    """Make PREFIX.bin and PREFIX.idx, as GPT-NeoX reads them, of the documents in some files.

    A .jsonl file has one document a line, under "text"; the source that the Pile notes under "meta", "pile_set_name" is
    kept. A .txt file is one document. Either may be compressed: .jsonl.zst, .txt.zst. Running again goes on where a run
    was ended.

    \b
    pythia data tokenize train.jsonl.zst --tokenizer pythia-70m/tokenizer.json -o corpus
    pythia data tokenize a.jsonl b.jsonl --tokenizer pythia-70m -o corpus --broken skip
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.tokenizing import tokenize

    with make_progress() as progress:
        told = tokenize(
            corpus,
            out,
            tokenizer=tokenizer,
            eod=eod,
            broken=broken,
            processes=processes,
            force=force,
            progress=progress,
        )
    if output_format == "json":
        click.echo(json_text(told))
        return
    rows = [[s["name"] or "(not said)", f"{s['documents']:,}", f"{s['tokens']:,}"] for s in told["sources"]]
    rows.append(["all", f"{told['n_documents']:,}", f"{told['n_tokens']:,}"])
    print_table(["source", "documents", "tokens"], rows, right=(1, 2))
    for line in told["left_out"]:
        click.echo(f"left out: {line['file']}: line {line['line']}: {line['why']}")
    if told["n_empty"]:
        click.echo(f"{told['n_empty']:,} documents have no text and gave no ids")
