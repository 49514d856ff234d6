"""`pythia card`: measured numbers into the card of a folder. Knows nothing of how they were measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from pythia_gguf.errors import ModelFileError, StorageError, UsageError

_PICTURES = ("divergence.png", "perplexity.png")


@click.command("card")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path), help="Of pythia measure.  [default: DIR/report.json]")
def command(folder: Path, report: Path | None) -> None:
    """Put what `pythia measure` found into the card of a folder: a table, and one file to begin with.

    The section is replaced when it is there already; the rest of README.md stays as it is. Pictures that `pythia plot`
    has put into DIR are shown.

    \b
    pythia measure pythia-70m-GGUF --text wiki.test.raw -o pythia-70m-GGUF/report.json
    pythia plot pythia-70m-GGUF/report.json -o pythia-70m-GGUF
    pythia card pythia-70m-GGUF
    """
    from pythia_gguf.card.measured import measured_section, with_measured
    from pythia_gguf.files import RegularFile, write_text
    from pythia_gguf.press.manifest import MANIFEST, read_manifest
    from pythia_gguf.press.staging import CARD

    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder")
    path = report or folder / "report.json"
    data = _read_report(path)
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder}: no manifest.json: not a folder of pythia quantize")
    sizes = {entry["file"]: entry["bytes"] for entry in manifest["files"]}
    strangers = [f["file"] for f in data["files"] if sizes.get(f["file"], f["bytes"]) != f["bytes"]]
    data["files"] = [f for f in data["files"] if f["file"] in sizes]
    if strangers or not data["files"]:
        raise UsageError(
            f"{path}: measured other files than those in {folder}: {', '.join(strangers) or 'all of them'}"
        )
    with RegularFile(folder / CARD) as file:
        old = bytes(file.read(0, file.size))
    pictures = [name for name in _PICTURES if (folder / name).is_file()]
    text = with_measured(old.decode("utf-8"), measured_section(data, pictures))
    write_text(folder / CARD, text)
    # A card that nobody has edited stays one that `pythia quantize` may write again.
    if manifest.get("card_sha256") == hashlib.sha256(old).hexdigest():
        manifest["card_sha256"] = hashlib.sha256(text.encode("utf-8")).hexdigest()
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    click.echo(f"{folder / CARD}: {len({f['file'] for f in data['files']})} files with what they cost")


def _read_report(path: Path) -> dict[str, Any]:
    from pythia_gguf.files import RegularFile

    with RegularFile(path) as file:
        raw = bytes(file.read(0, file.size))
    try:
        data = json.loads(raw)
        if data["schema_version"] != 1 or not isinstance(data["files"], list):
            raise ValueError("another schema")
        needed = {"file", "quant", "activations", "bytes", "bits_per_weight", "ppl", "ppl_error", "kl_mean", "kl_p999"}
        for entry in data["files"]:
            if missing := needed - set(entry):
                raise ValueError(f"lacks {', '.join(sorted(missing))}")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ModelFileError(f"not a report of pythia measure: {e}", path=path) from e
    checked: dict[str, Any] = data
    return checked
