"""`pythia plot`: pictures of reports and results. Knows nothing of how they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.errors import UsageError
from pythia_gguf.json_file import read_json_object


@click.command("plot", cls=Command)
@click.argument("files", metavar="report.json|results.json...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--against", type=click.Choice(["published"]), help="Draw EleutherAI's published scores, and compare.")
@click.option("--model", metavar="NAME", help="Which published model results are compared with, as pythia-70m-v0.")
@click.option(
    "-o", "--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder for PNG files."
)
def command(files: tuple[Path, ...], against: str | None, model: str | None, out: Path) -> None:
    """Draw reports of `pythia measure` and results of `pythia eval` or lm_eval, in either layout.

    With --against published also the model card's five pictures, each task by size with OPT and BLOOM beside, and one
    model through its training; results of a run are compared value by value.

    \b
    pythia plot nano-GGUF/report.json -o nano-GGUF
    pythia plot --against published -o plots
    pythia plot results.json --against published --model pythia-410m-deduped -o plots
    """
    from pythia_gguf.evals.plots import n_parameters, plot_published, plot_report, plot_steps
    from pythia_gguf.evals.published import agreements
    from pythia_gguf.evals.report import read_report, read_results
    from pythia_gguf.files import check_folder_place

    if not files and against is None:
        raise UsageError("nothing to draw: give a report.json or results.json, or --against published")
    written: list[Path] = []
    measured: dict[str, tuple[float, float]] = {}
    check_folder_place(out)
    kinds = {path: _kind(path) for path in files}
    if "results" not in kinds.values():
        refuse_given("model", "without results of `pythia eval`")
    for path, kind in kinds.items():
        if kind == "report":
            written += plot_report(read_report(path), out)
            continue
        data = read_results(path, ours=False)
        if against is None or model is None:
            raise UsageError(f"{path}: results are compared with --against published --model NAME")
        suite, name = _published_model(model)
        shots = _shots(data)
        rows = [
            a
            for task, metrics in data["results"].items()
            for a in agreements({task: metrics}, suite, name, shots.get(task, 0))
        ]
        if not rows:
            raise UsageError(f"{path}: nothing in it was published of {model}")
        _print(rows)
        # The pictures are of scores without examples in the prompt.
        measured |= {
            a.task: (n_parameters(name), a.value) for a in rows if a.metric == "acc" and not shots.get(a.task, 0)
        }
    if against is not None:
        written += plot_published(out, measured) + plot_steps(out)
    for path in written:
        click.echo(path)


def _published_model(name: str) -> tuple[str, str]:
    """Suite and model as the tables call them."""
    from pythia_gguf.hub.suite import find_model

    model, notice = find_model(name)
    if notice:
        click.echo(notice, err=True)
    # The standard 1B of v1 was published under the type it was trained in.
    plain = model.name.removesuffix("-v0")
    return f"v{model.version}", "pythia-1b-bf16" if (plain, model.version) == ("pythia-1b", 1) else plain


def _shots(data: dict[str, Any]) -> dict[str, int]:
    """Task -> examples in its prompts: of each in the harness's layout, of all in EleutherAI's."""
    config = data.get("config")
    shots = data.get("n-shot", config.get("num_fewshot") if isinstance(config, dict) else None)
    of_each = shots if isinstance(shots, dict) else dict.fromkeys(data["results"], shots)
    return {task: n for task, n in of_each.items() if isinstance(n, int)}


def _print(rows: list[Any]) -> None:
    from pythia_gguf.cli.tables import print_table

    table = [
        (a.task, a.metric, f"{a.value:.4f}", f"{a.published:.4f}", f"{a.stderr:.4f}", f"{a.distance:.2f}",
         "yes" if a.agrees else "no")
        for a in rows
    ]  # fmt: skip
    head = ("task", "metric", "this run", "published", "stderr", "apart, in stderr", "agrees")
    print_table(head, table, right=(2, 3, 4, 5))


def _kind(path: Path) -> str:
    data = read_json_object(path, what="a report of pythia measure or results", allow_nan=True)
    return "results" if "results" in data else "report"
