"""`pythia quants`: the menu, or the plan of a model; it reads no weight."""

from __future__ import annotations

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.menu import menu_json, print_menu
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text


@click.command("quants", cls=Command)
@click.argument("source", required=False)
@click.option("--mix", default="2026", show_default=True, help="Edition of the quants: 2026 or 2024.")
@click.option("--quants", default="all", show_default=True, help="Names of the menu, separated by commas.")
@click.option("--tensors", is_flag=True, help="For a SOURCE, each tensor's format and the reason.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(source: str | None, mix: str, quants: str, tensors: bool, output_format: str) -> None:
    """Show the menu of quants; for a SOURCE, what each file will hold and its exact size.

    \b
    pythia quants                                      the 19 names
    pythia quants pythia-70m                           sizes for a model, weights not read
    pythia quants pythia-70m --quants Q4_K_M --tensors why each tensor gets its format
    """
    from pythia_gguf.plan.quants import find_mix, select_quants

    find_mix(mix)
    chosen = select_quants(quants)
    if source is None:
        refuse_given("mix tensors", "without SOURCE: the names are the same")
        if output_format == "json":
            rows = [{"quant": q.name, "file_type": q.file_type, "base": q.base, "alias_of": q.alias_of} for q in chosen]
            click.echo(json_text({"schema_version": 1, "quants": rows}))
            return
        print_table(
            ("quant", "file type", "base format", ""),
            [(q.name, str(q.file_type), q.base, f"same file as {q.alias_of}" if q.alias_of else "") for q in chosen],
            right=(1,),
        )
        return
    from pythia_gguf.press.quantize import quantize

    result = quantize(source, quants=quants, mix=mix, dry_run=True)
    if output_format == "json":
        plans = {f.quant: {t: {"format": n, "reason": r} for t, (n, r) in f.plan.items()} for f in result.files}
        click.echo(json_text(menu_json(result) | ({"plans": plans} if tensors else {})))
        return
    print_menu(result)
    for f in result.files if tensors else ():
        click.echo(f"\n{f.quant}")
        print_table(("tensor", "format", "reason"), [(t, n, r) for t, (n, r) in f.plan.items()])
