"""`pythia measure`: a report on many files, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pythia_gguf.choices import ACTIVATIONS, ANY_GELU
from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.errors import Argument
from pythia_gguf.json_file import json_text


@click.command("measure", cls=Command)
@click.argument("files", metavar="DIR|FILE|NAME...", nargs=-1, required=True)
@click.option(
    "--reference",
    metavar="MODEL",
    help="What the files are compared with.  [default: the unquantized file of their model in DIR]",
)
@click.option("--text", required=True, type=click.Path(path_type=Path), help="Text that the models have not seen.")
@click.option("--context", type=int, default=512, show_default=True, help="Tokens of a window; its second half counts.")
@click.option(
    "--chunks", "n_windows", type=int, metavar="N", help="At most so many windows.  [default: the whole text]"
)
@click.option(
    "--gelu", type=click.Choice(ANY_GELU), default="auto", show_default=True,
    help="Form of the activation; llama.cpp runs tanh.",
)  # fmt: skip
@click.option(
    "--activations", type=click.Choice([*ACTIVATIONS[:2], "both"]), default="int8", show_default=True,
    help="int8 is how files are run; float32 shows the error of the weights alone.",
)  # fmt: skip
@click.option("--threads", type=int, help="Threads; no result depends on it.  [default: one per CPU]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the report as JSON; a killed run goes on.")
@click.option("--force", is_flag=True, help="Replace a report that says more, or of something else.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    files: tuple[str, ...],
    reference: str | None,
    text: Path,
    context: int,
    n_windows: int | None,
    gelu: str,
    activations: str,
    threads: int | None,
    out: Path | None,
    force: bool,
    output_format: str,
) -> None:
    """Measure what each quantization costs: perplexity and Kullback-Leibler divergence from the unquantized model.

    One pass over the text for reference and files together; no logits are written. Windows and scored halves are those
    of llama-perplexity.

    \b
    pythia measure pythia-70m-GGUF --text wiki.test.raw -o report.json
    pythia measure USER/NAME-GGUF:Q4_K_M --reference USER/NAME-GGUF:F16 --text wiki.test.raw
    pythia measure a.Q4_K_M.gguf b.Q4_0.gguf --reference pythia-70m:F16 --text notes.txt --activations both
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.evals.files import measure_files

    if out is None:
        refuse_given("force", "without ", Argument("out"))

    def tell(line: str) -> None:
        click.echo(line, err=True)

    reports: list[dict[str, Any]] = []
    try:
        with make_progress() as progress:
            measure_files(
                files,
                text=text,
                reference=reference,
                context=context,
                n_windows=n_windows,
                gelu=gelu,
                activations=activations,
                threads=threads,
                out=out,
                force=force,
                progress=progress,
                tell=tell,
                show=reports.append,
            )
    finally:  # a report that could not be written is shown
        for report in reports:
            if output_format == "json":
                click.echo(json_text(report))
            else:
                _print(report)


def _print(report: dict[str, Any]) -> None:
    from pythia_gguf.cli.tables import print_table
    from pythia_gguf.evals.report import labels, place

    base, text = report["reference"], report["text"]
    click.echo(
        f"{text['file']}: {text['windows']} windows of {text['context']} tokens, {text['scored_tokens']:,} scored;"
        f" {report['gelu']} GELU"
    )
    bases = {place(b): b for b in (base, *(f["against"] for f in report["files"] if "against" in f))}
    for name, b in bases.items():
        click.echo(f"reference {name}: perplexity {_shown(b['ppl'], '.4f')} +- {_shown(b['ppl_error'], '.4f')}")
    click.echo()
    named = sorted(zip(report["files"], labels(report["files"]), strict=True), key=lambda pair: pair[0]["bytes"])
    head = ("quant", "activations", "bytes", "bits/w", "perplexity", "change", "KL", "KL 99.9%", "same top")
    print_table(
        (*head, "read t/s", "write t/s"), [_row(f, label, report) for f, label in named], right=tuple(range(2, 11))
    )
    for name, row in [*((f"reference {n}", b) for n, b in bases.items()), *((label, f) for f, label in named)]:
        for key in ("missing", "note"):
            if key in row:
                click.echo(f"- {name}: {row[key]}")


def _row(f: Mapping[str, Any], label: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    from pythia_gguf.evals.report import change, reference_of

    more = change(f, reference_of(report, f))
    return (
        label,
        f["activations"],
        f"{f['bytes']:,}",
        f"{f['bits_per_weight']:.2f}",
        _shown(f["ppl"], ".4f"),
        "-" if more is None else f"{100 * more:+.2f} %",
        _shown(f["kl_mean"], ".5f"),
        _shown(f["kl_p999"], ".3f"),
        "-" if f["same_top1"] is None else f"{100 * f['same_top1']:.2f} %",
        *(f"{f[key]:.0f}" if key in f else "" for key in ("prefill_tokens_per_s", "decode_tokens_per_s")),
    )


def _shown(figure: float | None, form: str) -> str:
    """A figure; one that does not exist is a dash, and the lines below the table say why."""
    return "-" if figure is None else format(figure, form)
