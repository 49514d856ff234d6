"""`pythia pull`: a model of the Hub onto this machine."""

from __future__ import annotations

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text

SCHEMA_VERSION = 1


@click.command("pull", cls=Command)
@click.argument("name")
@click.option("--endpoint", metavar="URL", help="Another hub.  [default: HF_ENDPOINT, else huggingface.co]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str, endpoint: str | None, output_format: str) -> None:
    """Fetch a model, NAME[@STEP], into the cache of huggingface_hub, where transformers finds it too.

    Only the files of the model come, safetensors rather than .bin; of a repository of GGUF files only the one that
    :QUANT or :FILE names, or the only one. Each is compared with the hash that the Hub lists. Running again goes on
    where a broken connection ended.

    \b
    pythia pull pythia-70m-deduped
    pythia pull pythia-410m-deduped-v0@step3000
    pythia pull USER/NAME@BRANCH
    pythia pull USER/NAME-GGUF:Q4_K_M
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.hub.client import Hub
    from pythia_gguf.hub.model_name import parse_model_name
    from pythia_gguf.press.find_source import fetch_source

    parsed = parse_model_name(name, endpoint)
    if parsed.notice:
        click.echo(parsed.notice, err=True)
    with make_progress() as progress:
        path = fetch_source(parsed, Hub(endpoint), keep=True, progress=progress).path
    if output_format == "json":
        snapshot = next(p for p in (path, *path.parents) if p.parent.name == "snapshots")
        file = None if path == snapshot else path.relative_to(snapshot).as_posix()
        names = {"repo_id": parsed.repo_id, "revision": parsed.revision, "commit": snapshot.name}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | names | {"folder": str(snapshot), "file": file}))
    else:
        click.echo(path)
