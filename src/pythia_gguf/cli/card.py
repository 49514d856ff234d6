"""`pythia card`: measured numbers into the card of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.errors import StorageError, UsageError, one_line

if TYPE_CHECKING:
    from pythia_gguf.card.measured import TaskRow

_PICTURES = ("divergence.png", "perplexity.png")


@click.command("card", cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path), help="Of pythia measure.  [default: DIR/report.json]")
@click.option(
    "--results", "tasks", multiple=True, type=click.Path(path_type=Path),
    help="Of pythia eval; repeatable.  [default: DIR/results*.json]",
)  # fmt: skip
def command(folder: Path, report: Path | None, tasks: tuple[Path, ...]) -> None:
    """Put what `pythia measure` and `pythia eval` found into the card of a folder, with one file to begin with.

    The section is replaced when it is there already; the rest of README.md stays as it is. Reports and results of other
    bytes than lie in DIR are refused. Pictures that `pythia plot` has drawn of the report are shown.

    \b
    pythia measure pythia-70m-GGUF --text wiki.test.raw -o pythia-70m-GGUF/report.json
    pythia eval pythia-70m-GGUF:Q4_K_M --tasks sciq -o pythia-70m-GGUF/results-Q4_K_M.json
    pythia plot pythia-70m-GGUF/report.json -o pythia-70m-GGUF
    pythia card pythia-70m-GGUF
    """
    from pythia_gguf.card.measured import is_on_bias, measured_section, with_measured
    from pythia_gguf.evals.plots import is_drawn_from
    from pythia_gguf.evals.report import read_report
    from pythia_gguf.files import sha256_of
    from pythia_gguf.press.find_source import find_folder
    from pythia_gguf.press.folder_card import open_card
    from pythia_gguf.press.manifest import CARD

    folder = find_folder(folder)
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    path = report or folder / "report.json"
    if report is None and not path.exists():
        raise StorageError(f"{path}: no such file. `pythia measure {folder} --text FILE -o {path}` writes it")
    data = read_report(path)
    with open_card(folder) as card:
        there = {entry["file"]: entry["sha256"] for entry in card.manifest["files"]}
        data = _of_folder(data, path, there, folder)
        found = tasks or sorted(folder.glob("results*.json"))
        rows = [row for p in found for row in _results(p, there, folder, is_given=bool(tasks))]
        drawn = {name: is_drawn_from(folder / name, sha256_of(path)) for name in _PICTURES if (folder / name).is_file()}
        for name in (name for name, is_of_report in drawn.items() if not is_of_report):
            again = f"`pythia plot {path} -o {folder}` draws it"
            click.echo(f"{folder / name}: not of {path}, so left out. {again}", err=True)
        section = measured_section(data, rows, [name for name, is_of_report in drawn.items() if is_of_report])
        card.write(with_measured(card.text, section, is_bias_assessed=is_on_bias(rows)))
    click.echo(f"{folder / CARD}: {len({f['file'] for f in data['files']})} files with what they cost")


def _results(path: Path, there: Mapping[str, str], folder: Path, *, is_given: bool) -> list[TaskRow]:
    """The results on files that are there; results on other files are an error only where the user has named them."""
    from pythia_gguf.card.measured import TaskRow
    from pythia_gguf.evals.at_hand import refuse_others
    from pythia_gguf.evals.report import read_results
    from pythia_gguf.evals.scores import scores_of

    data = read_results(path, ours=True)
    facts = data["config"]["pythia_gguf"]
    if facts["file"] not in there:
        said = f"{path}: of {one_line(facts['file'])}, which is not in this folder"
        if is_given:
            raise UsageError(said)
        click.echo(f"{said}, so left out", err=True)
        return []
    refuse_others(
        path, [facts], there, f"Run the tasks again: `pythia eval {folder / facts['file']} -o {path} --force`"
    )
    return [
        TaskRow(
            file=facts["file"],
            run=", ".join([facts["activations"], *([f"{kv} cache"] if (kv := facts.get("kv")) else [])]),
            gelu=facts["gelu"],
            encoding=facts["encoding"],
            shots=score.shots,
            items=str(score.items),
            task=score.task,
            metric=score.metric,
            value=score.value,
            stderr=score.stderr,
        )
        for score in scores_of(data)
    ]


def _of_folder(data: dict[str, Any], path: Path, there: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The part of a report that is about files in a folder."""
    from pythia_gguf.evals.at_hand import measured_files, refuse_others
    from pythia_gguf.evals.report import place, reference_of

    again = f"Measure again: `pythia measure {folder} --text FILE -o {path} --force`"
    named = [f for f in data["files"] if f["file"] in there]
    if not named:
        raise UsageError(f"{path}: measured other files than those in {folder}: all of them. {again}")
    # A report may be on two folders: take the rows of this one.
    rows = [f for f in named if f.get("sha256") == there[f["file"]]]
    found = {f["file"] for f in rows}
    refuse_others(path, [f for f in named if f["file"] not in found], there, again)
    refuse_others(path, measured_files(data | {"files": rows}), there, again)
    if twice := [
        f for f in rows if sum((f["file"], f["activations"]) == (r["file"], r["activations"]) for r in rows) > 1
    ]:
        raise UsageError(f"{path}: of two folders, as {one_line(place(twice[0]), 100)}: measure {folder} by itself")
    return data | {"reference": reference_of(data, rows[0]), "files": rows}
