"""`pythia export`: a GGUF to a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import click

from pythia_gguf.choices import ANY_GELU
from pythia_gguf.cli.command import Command


@click.command("export", cls=Command)
@click.argument("model")
@click.option("--to", required=True, metavar="HF-FOLDER", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    help="Of all tensors.  [default: that of an unquantized file, else float16]",
)
@click.option(
    "--gelu", type=click.Choice(ANY_GELU), default="auto", show_default=True,
    help="For config.json. auto: what the manifest or config.json beside the file says, else erf.",
)  # fmt: skip
def command(model: str, to: Path, dtype: str | None, gelu: str) -> None:
    """Write a GGUF, quantized or not, as a folder that transformers loads: weights, config and tokenizer.

    \b
    pythia export pythia-70m.Q4_K_M.gguf --to pythia-70m-q4
    pythia export pythia-70m.F16.gguf --to pythia-70m-again
    """
    from pythia_gguf.arch.activation import DEFAULT_ACT, GELU_OF_ACT, act_beside
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.export.folder import check_export, export
    from pythia_gguf.models.find import found_gguf

    check_export(to)
    with make_progress() as progress:
        found = found_gguf(model, progress=progress, tell=lambda line: click.echo(line, err=True))
        path = click.get_current_context().with_resource(found)
        act = act_beside(path) or DEFAULT_ACT
        if gelu not in ("auto", GELU_OF_ACT[act]):
            act = "gelu" if gelu == "erf" else "gelu_new"
        exported = export(path, to, dtype=dtype, hidden_act=act, progress=progress)
    for note in exported.notes:
        click.echo(note, err=True)
    click.echo(f"{exported.folder}: {exported.dtype}, {', '.join(p.name for p in exported.files)}")
