"""`pythia card`: measured numbers into the card of a folder. Knows nothing of how they were measured."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.errors import StorageError, UsageError, one_line
from pythia_gguf.json_file import json_text, read_text

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

    The section is replaced when it is there already; the rest of README.md stays as it is. Pictures that `pythia plot`
    has put into DIR are shown.

    \b
    pythia measure pythia-70m-GGUF --text wiki.test.raw -o pythia-70m-GGUF/report.json
    pythia eval pythia-70m-GGUF:Q4_K_M --tasks sciq -o pythia-70m-GGUF/results-Q4_K_M.json
    pythia plot pythia-70m-GGUF/report.json -o pythia-70m-GGUF
    pythia card pythia-70m-GGUF
    """
    from pythia_gguf.card.measured import is_on_bias, measured_section, with_measured
    from pythia_gguf.evals.report import read_report
    from pythia_gguf.files import write_text
    from pythia_gguf.press.manifest import MANIFEST, read_manifest
    from pythia_gguf.press.staging import CARD

    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    path = report or folder / "report.json"
    if report is None and not path.exists():
        raise StorageError(f"{path}: no such file. `pythia measure {folder} --text FILE -o {path}` writes it")
    data = read_report(path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder}: no manifest.json: not a folder of pythia quantize")
    sizes = {entry["file"]: entry["bytes"] for entry in manifest["files"]}
    data = _of_folder(data, path, sizes, folder)
    old = read_text(folder / CARD)
    pictures = [name for name in _PICTURES if (folder / name).is_file()]
    results = [_results(p, sizes) for p in tasks or sorted(folder.glob("results*.json"))]
    section = measured_section(data, results, pictures)
    text = with_measured(old, section, is_bias_assessed=is_on_bias(results))
    write_text(folder / CARD, text)
    # A card that nobody has edited stays one that `pythia quantize` may write again.
    if manifest.get("card_sha256") == hashlib.sha256(old.encode("utf-8")).hexdigest():
        manifest["card_sha256"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
        write_text(folder / MANIFEST, json_text(manifest, indent=1) + "\n")
    click.echo(f"{folder / CARD}: {len({f['file'] for f in data['files']})} files with what they cost")


def _results(path: Path, known: dict[str, int]) -> dict[str, Any]:
    from pythia_gguf.evals.report import read_results

    data = read_results(path, ours=True)
    file = data["config"]["pythia_gguf"]["file"]
    if file not in known:
        raise UsageError(f"{path}: of {one_line(file)}, which is not in this folder")
    return data


def _of_folder(data: dict[str, Any], path: Path, known: dict[str, int], folder: Path) -> dict[str, Any]:
    """Of a report, what is of files in a folder."""
    from pythia_gguf.evals.report import place, reference_of

    strangers = [f["file"] for f in data["files"] if known.get(f["file"], f["bytes"]) != f["bytes"]]
    rows = [f for f in data["files"] if f["file"] in known]
    if strangers or not rows:
        raise UsageError(
            f"{path}: measured other files than those in {folder}:"
            f" {', '.join(one_line(s, 60) for s in strangers[:3]) or 'all of them'}"
        )
    if twice := [
        f for f in rows if sum((f["file"], f["activations"]) == (r["file"], r["activations"]) for r in rows) > 1
    ]:
        raise UsageError(f"{path}: of two folders, as {one_line(place(twice[0]), 100)}: measure {folder} by itself")
    return data | {"reference": reference_of(data, rows[0]), "files": rows}
