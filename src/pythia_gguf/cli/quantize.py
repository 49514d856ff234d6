"""`pythia quantize`: options, progress and the table at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.menu import menu_json, print_menu
from pythia_gguf.json_file import json_text


@click.command("quantize", cls=Command)
@click.argument("source")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder to write.  [default: NAME-GGUF]")
@click.option("--quants", default="all", show_default=True, help="Names of the menu, separated by commas.")
@click.option(
    "--mix",
    default="2026",
    show_default=True,
    help="Edition of the quants: 2026 is llama.cpp's today, 2024 gives the sizes of older model cards.",
)
@click.option("--threads", type=int, help="Worker threads; files do not depend on it.  [default: one per CPU]")
@click.option("--name", help="NAME of the files.  [default: the source's]")
@click.option("--quantized-by", metavar="WHO", help="Goes into the card.")
@click.option("--dry-run", is_flag=True, help="Show plan and exact sizes; read no weight, write nothing.")
@click.option("--force", is_flag=True, help="Make the files anew, and replace what is in the way.")
@click.option(
    "--imatrix",
    type=click.Path(path_type=Path),
    help="Importance matrix, of `pythia imatrix` or llama.cpp's: errors count by how large a column's activations are.",
)
@click.option("--keep-f16", is_flag=True, help="Also leave the unquantized file.")
@click.option("--cache", "keep_source", is_flag=True, help="Keep a copy of the weights of a model of the Hub.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress, no table; errors still show.")
def command(
    source: str,
    out: Path | None,
    quants: str,
    mix: str,
    threads: int | None,
    name: str | None,
    quantized_by: str | None,
    dry_run: bool,
    force: bool,
    keep_f16: bool,
    keep_source: bool,
    imatrix: Path | None,
    output_format: str,
    quiet: bool,
) -> None:
    """Turn a checkpoint into GGUF files, byte for byte llama.cpp's.

    SOURCE is a Hugging Face folder of a Pythia or GPT-NeoX model (config.json, tokenizer.json, safetensors or
    pytorch_model.bin), an F16, BF16 or F32 GGUF of one, a step of a run as DIR@stepN, where DIR holds folders stepN, or
    a model of the Hub as NAME[@STEP]. Weights of the Hub are read as they are needed, without a copy on disk.

    \b
    pythia quantize pythia-70m                         all 19 files in pythia-70m-GGUF/
    pythia quantize pythia-70m --quants Q4_K_M,Q8_0    two of them
    pythia quantize pythia-70m --imatrix imatrix.gguf  the same, with an importance matrix
    pythia quantize pythia-70m --mix 2024 --dry-run    sizes as in the model cards of 2024
    pythia quantize my-run@step3000                    my-run/step3000, in my-run-step3000-GGUF/
    pythia quantize pythia-70m-deduped@step3000        where there is no such folder: from the Hub
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.press.quantize import quantize

    with contextlib.nullcontext() if quiet or dry_run else make_progress() as progress:
        result = quantize(
            source,
            out,
            quants=quants,
            mix=mix,
            threads=threads,
            name=name,
            quantized_by=quantized_by,
            dry_run=dry_run,
            force=force,
            keep_f16=keep_f16,
            keep_source=keep_source,
            imatrix=imatrix,
            progress=progress,
        )
    if output_format == "json":
        click.echo(json_text(menu_json(result)))
    elif not quiet:
        print_menu(result)
