"""`pythia plot`: pictures of reports and results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.errors import UsageError
from pythia_gguf.json_file import read_json_object

if TYPE_CHECKING:
    from pythia_gguf.evals.plots import MeasuredScore
    from pythia_gguf.evals.published import Agreement


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
    model through its training; results of a run are compared value by value. Several reports are one picture, and so
    are several results.

    \b
    pythia plot nano-GGUF/report.json -o nano-GGUF
    pythia plot --against published -o plots
    pythia plot results.json --against published --model pythia-410m-deduped -o plots
    """
    from pythia_gguf.evals.plots import plot_published, plot_reports, plot_steps
    from pythia_gguf.evals.report import read_report
    from pythia_gguf.files import check_folder_place, sha256_of

    if not files and against is None:
        raise UsageError("nothing to draw: give a report.json or results.json, or --against published")
    check_folder_place(out)
    kinds = {path: _kind(path) for path in files}
    results = [path for path, kind in kinds.items() if kind == "results"]
    if not results:
        refuse_given("model", "without results of `pythia eval`")
    elif against is None or model is None:
        raise UsageError(f"{results[0]}: results are compared with --against published --model NAME")
    reports = {path: read_report(path) for path, kind in kinds.items() if kind == "report"}
    if len(reports) == 1:
        _check_at_hand(*next(iter(reports.items())), out)
    measured = _compare(results, model) if model is not None else []
    written: list[Path] = []
    if reports:
        names = _told_apart(list(reports))
        by_name = {names[path]: report for path, report in reports.items()}
        written += plot_reports(by_name, [sha256_of(path) for path in reports], out)
    if against is not None:
        written += plot_published(out, measured) + plot_steps(out)
    for path in written:
        click.echo(path)


def _check_at_hand(path: Path, report: dict[str, Any], out: Path) -> None:
    """Refuse to put pictures into a folder that holds other files than those they show."""
    from pythia_gguf.evals.at_hand import files_at_hand, measured_files, refuse_others

    there = files_at_hand(out) if out.is_dir() else None
    refuse_others(path, measured_files(report), there or {}, "Measure again, or choose another --out")


def _compare(paths: Sequence[Path], model: str) -> list[MeasuredScore]:
    """Print tables of results beside the published ones; return what the pictures show of them."""
    from pythia_gguf.evals.plots import MeasuredScore, n_parameters
    from pythia_gguf.evals.published import agreements
    from pythia_gguf.evals.report import read_results
    from pythia_gguf.evals.scores import scores_of

    suite, name = _published_model(model)
    measured, names = [], _told_apart(paths)
    for path in paths:
        rows = agreements(scores_of(read_results(path, ours=False)), suite, name)
        if not rows:
            raise UsageError(f"{path}: nothing in it was published of {model}")
        if len(paths) > 1:
            click.echo(f"{names[path]}:")
        _print(rows)
        run = "this run" if len(paths) == 1 else names[path]
        # The pictures show scores without examples in the prompt.
        measured += [
            MeasuredScore(
                label=run if a.distance is not None else f"{run}, {a.items} items",
                task=a.score.task,
                parameters=n_parameters(name),
                accuracy=a.score.value,
            )
            for a in rows
            if a.score.metric == "acc" and not a.score.shots
        ]
    return measured


def _told_apart(paths: Sequence[Path]) -> dict[Path, str]:
    """Names of files, with enough of their folders to tell them apart."""
    from pythia_gguf.evals.model_files import folders_that_tell_apart

    folders = folders_that_tell_apart(paths)
    return {path: f"{folders[path]}/{path.name}" if path in folders else path.name for path in paths}


def _published_model(name: str) -> tuple[str, str]:
    """Suite and model as the tables call them."""
    from pythia_gguf.hub.suite import find_model

    model, notice = find_model(name)
    if notice:
        click.echo(notice, err=True)
    # The standard 1B of v1 was published under the type it was trained in.
    plain = model.name.removesuffix("-v0")
    return f"v{model.version}", "pythia-1b-bf16" if (plain, model.version) == ("pythia-1b", 1) else plain


def _print(rows: Sequence[Agreement]) -> None:
    from pythia_gguf.cli.tables import print_table

    table = [
        (a.score.task, a.score.metric, f"{a.score.value:.4f}", f"{a.published:.4f}", f"{a.stderr:.4f}",
         str(a.items) or "-", "-" if a.distance is None else f"{a.distance:.2f}",
         {True: "yes", False: "no", None: "-"}[a.agrees])
        for a in rows
    ]  # fmt: skip
    head = ("task", "metric", "this run", "published", "stderr", "items", "apart, in stderr", "agrees")
    print_table(head, table, right=(2, 3, 4, 5, 6))
    if any(a.agrees is None for a in rows):
        click.echo("A score of other items than were published is not compared.")


def _kind(path: Path) -> str:
    data = read_json_object(path, what="a report of pythia measure or results", allow_nan=True)
    return "results" if "results" in data else "report"
