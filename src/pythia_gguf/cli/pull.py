"""`pythia pull`: a model of the Hub onto this machine. Knows nothing of how."""

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

    Only the files of the model come, safetensors rather than .bin; each is compared with the hash that the Hub lists.
    Running again goes on where a broken connection ended.

    \b
    pythia pull pythia-70m-deduped
    pythia pull pythia-410m-deduped-v0@step3000
    pythia pull USER/NAME@BRANCH
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.errors import UsageError
    from pythia_gguf.hub.client import Hub
    from pythia_gguf.hub.model_name import parse_model_name
    from pythia_gguf.hub.pull import NoWeightsError, pull
    from pythia_gguf.press.named import refuse_other_repository

    parsed = parse_model_name(name, endpoint)
    if parsed.quant is not None:
        raise UsageError(f"{name}: what is pulled has no quant. pythia generate {name} makes one")
    if parsed.notice:
        click.echo(parsed.notice, err=True)
    hub = Hub(endpoint)
    with make_progress() as progress:
        try:
            folder = pull(parsed, hub, progress)
        except NoWeightsError as e:
            refuse_other_repository(parsed, e, hub)
            raise
    if output_format == "json":
        result = {"repo_id": parsed.repo_id, "revision": parsed.revision, "commit": folder.name, "folder": str(folder)}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | result))
    else:
        click.echo(folder)
