"""`pythia data corpus`: a labelled corpus of documentation that Debian packages."""

from __future__ import annotations

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text

SCHEMA_VERSION = 1


@click.command("corpus", cls=Command)
@click.option("-o", "--out", metavar="DIR", help="Where the sources go.")
@click.option("--sources", default="all", show_default=True, help="Names, separated by commas.")
@click.option("--list", "only_list", is_flag=True, help="Show the sources, and make nothing.")
@click.option("--force", is_flag=True, help="Make sources anew that are there.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(out: str | None, sources: str, only_list: bool, force: bool, output_format: str) -> None:
    """Make a labelled corpus in DIR, of documentation that Debian packages: the Pile in small.

    Each source is a file of lines of JSON, as `pythia data tokenize` reads them. apt-get fetches the packages and
    installs nothing. LICENSES.md names the licence of each; keep to it when you pass texts on. Running again makes what
    is missing.

    \b
    pythia data corpus --list
    pythia data corpus -o texts
    pythia data corpus -o texts --sources python,sqlite
    """
    from pythia_gguf.data.corpus import list_sources, make_corpus
    from pythia_gguf.errors import Argument, UsageError

    if only_list:
        refuse_given("out sources force", "where sources are only shown")
        listed = list_sources()
        if output_format == "json":
            click.echo(json_text({"schema_version": SCHEMA_VERSION, "sources": listed}))
            return
        rows = [
            [s["name"], ", ".join(p["name"] for p in s["packages"]), f"{s['n_bytes']:,}", s["licence"]] for s in listed
        ]
        print_table(["source", "packages", "bytes to fetch", "licence"], rows, right=(2,))
        return
    if out is None:
        there_is = " says where the corpus goes; without it there is only "
        raise UsageError(Argument("out"), there_is, Argument("only_list", True))
    from pythia_gguf.cli.progress import make_progress

    with make_progress() as progress:
        told = make_corpus(out, sources=sources, force=force, progress=progress)
    if output_format == "json":
        click.echo(json_text(told))
        return
    rows = [[s["name"], f"{s['n_documents']:,}", f"{s['n_bytes']:,}"] for s in told["sources"]]
    rows.append(["all", *(f"{sum(s[key] for s in told['sources']):,}" for key in ("n_documents", "n_bytes"))])
    print_table(["source", "documents", "bytes"], rows, right=(1, 2))
    for package in told["missing"]:
        click.echo(f"left out: apt has no package {package}")
