"""`pythia data dedup`: a corpus without its near-duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.data_options import broken_option, processes_option
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text


@click.command("dedup", cls=Command)
@click.argument("corpus", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A folder for what stays.")
@click.option(
    "--threshold", type=float, default=0.87, show_default=True, help="Least similarity of duplicates, 0.1 to 1."
)
@click.option("--shard", metavar="I/N", help="Only make the signatures of every N-th file, from file I on.")
@click.option("--ray", metavar="ADDRESS", help="A Ray cluster that does the work, or: local.")
@broken_option
@processes_option
@click.option("--force", is_flag=True, help="Replace other results in that folder.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    corpus: tuple[Path, ...],
    out: Path,
    threshold: float,
    shard: str | None,
    ray: str | None,
    broken: str,
    processes: int | None,
    force: bool,
    output_format: str,
) -> None:
    """Write the documents of some files into a folder without near-duplicates, over all files together.

    Two documents are duplicates where they share at least THRESHOLD of their shingles, which are five words in a row;
    0.87 is what Pythia's deduplicated Pile was made with. Of duplicates the first in the order of the files stays, its
    line byte for byte. removed.jsonl in the folder says which document each of the others duplicates, report.json what
    the table says. Files end with .jsonl or .txt, or that and .zst. Running again goes on where a run was ended.

    On several machines that share their folders, --shard 1/8 to 8/8 make the signatures, in any order; the same command
    without it does the rest. The results are the same bytes.

    \b
    pythia data dedup a.jsonl.zst b.jsonl -o clean
    pythia data dedup part*.jsonl -o clean --shard 3/8
    pythia data dedup part*.jsonl -o clean --ray 10.0.0.1:6379
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.data.dedup import dedup

    with make_progress() as progress:
        told = dedup(
            corpus,
            out,
            threshold=threshold,
            shard=shard,
            ray=ray,
            broken=broken,
            processes=processes,
            force=force,
            progress=progress,
        )
    if output_format == "json":
        click.echo(json_text(told))
    elif "kept" not in told:
        click.echo(f"shard {shard}: signatures of {told['documents']:,} documents in {told['files']:,} files")
    else:
        _show(told, out)


def _show(told: dict[str, Any], out: Path) -> None:
    rows = [_row(source["name"] or "(not said)", source) for source in told["sources"]]
    print_table(["source", "documents", "kept", "removed"], [*rows, _row("all", told)], right=(1, 2, 3))
    for line in told["left_out"]:
        click.echo(f"left out: {line['file']}: line {line['line']}: {line['why']}")
    click.echo(f"what was removed, and why: {out / 'removed.jsonl'}")


def _row(name: str, counts: dict[str, Any]) -> list[str]:
    return [name, *(f"{counts[key]:,}" for key in ("documents", "kept", "removed"))]
