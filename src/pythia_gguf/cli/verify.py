"""`pythia verify`: one line per file, exit code 65 when one is damaged. Knows no hashes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import json_text


@click.command("verify", cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", is_flag=True, help="Only the exit code, and faults on stderr.")
def command(path: Path, output_format: str, quiet: bool) -> None:
    """Check a folder made by `pythia quantize`, or one GGUF file.

    With a manifest.json beside the files every byte is compared with it, and a difference is named by its tensor.
    Without one, header, sizes and offsets are checked. Exit code 0 when all is well, 65 when a file is damaged.

    \b
    pythia verify pythia-70m-GGUF
    pythia verify pythia-70m-GGUF/pythia-70m.Q4_K_M.gguf
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.press.verify import verify

    show = contextlib.nullcontext() if quiet or not sys.stderr.isatty() else make_progress()
    with show as progress:
        if progress is not None:
            progress.stage("verifying", _total_bytes(path), "bytes")
        verdicts = verify(path, *([progress.advance] if progress is not None else []))
    faults = [v for v in verdicts if v.fault]
    if output_format == "json":
        rows = [{"file": v.file, "bytes": v.n_bytes, "checked": v.checked, "fault": v.fault} for v in verdicts]
        click.echo(json_text({"schema_version": 1, "ok": not faults, "files": rows}))
    elif not quiet:
        for v in verdicts:
            click.echo(f"{'FAULT' if v.fault else 'ok':5}  {v.file}  {v.fault or v.checked}")
    if faults:
        raise ModelFileError(
            f"{len(faults)} of {len(verdicts)} files are damaged or missing, first {faults[0].file}: {faults[0].fault}",
            path=path,
        )


def _total_bytes(path: Path) -> int:
    files = path.glob("*.gguf") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.exists())
