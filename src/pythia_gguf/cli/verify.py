"""`pythia verify`: one line per file, exit code 65 when one is damaged, 74 when one is missing.

With `--against` it is against.py that compares and prints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.errors import Argument, ModelFileError, StorageError, one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.press.verify import Verdict


@click.command("verify", cls=Command)
@click.argument("place", metavar="PATH|NAME")
@click.option("--against", metavar="SOURCE", help="Compare with what this checkpoint gives, encoded anew in memory.")
@click.option("--imatrix", type=click.Path(path_type=Path), help="With --against: importance matrix of the files.")
@click.option("--threads", type=int, help="With --against: worker threads.  [default: one per CPU]")
@click.option("--ignore-missing", is_flag=True, help="Check only those of the listed files that are here.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--quiet", is_flag=True, help="Only the exit code, and faults on stderr.")
def command(
    place: str,
    against: str | None,
    imatrix: Path | None,
    threads: int | None,
    ignore_missing: bool,
    output_format: str,
    quiet: bool,
) -> None:
    """Check a folder made by `pythia quantize`, or one GGUF file, here or as USER/NAME:QUANT of the Hub.

    With a manifest.json beside the files every byte is compared with it, and a difference is named by its tensor; where
    there is only SHA256SUMS, with that. Without either, header, sizes and offsets are checked. Exit code 0 when all is
    well, 65 when a file is damaged, 74 when some are missing and the others are sound.

    --against compares with a source instead of a list: SOURCE is what `pythia quantize` takes, and a file derives from
    it when every tensor is what this source gives in that format. For each file it names the quant and the mix, or what
    differs: tensors, keys, or the choice of formats. Exit code 65 for whatever is not the same byte for byte.

    \b
    pythia verify pythia-70m-GGUF
    pythia verify pythia-70m-GGUF/pythia-70m.Q4_K_M.gguf
    pythia verify --ignore-missing .                      a folder that was fetched in part
    pythia verify pythia-70m-GGUF --against pythia-70m    whether the files are made of this checkpoint
    """
    if output_format == "json":
        refuse_given("quiet", "with ", Argument("output_format", "json"))
    if against is not None:
        from pythia_gguf.cli.against import compare

        compare(place, against, imatrix, threads, ignore_missing, output_format, quiet)
        return
    refuse_given("imatrix threads", "without ", Argument("against"))
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.press.find_source import find_path
    from pythia_gguf.press.verify import verify

    show = contextlib.nullcontext() if quiet else make_progress()
    with show as progress:
        path = find_path(place, progress)
        if progress is not None:
            progress.stage("verifying", _total_bytes(path), "bytes")
        advance = [progress.advance] if progress is not None else []
        verdicts = verify(path, *advance, ignore_missing=ignore_missing)
    damaged, missing = ([v for v in verdicts if v.state == state] for state in ("damaged", "missing"))
    if output_format == "json":
        rows = [
            {"file": v.file, "state": v.state, "bytes": v.n_bytes, "checked": v.checked, "fault": v.fault}
            for v in verdicts
        ]
        counts = {"ok": not damaged and not missing, "damaged": len(damaged), "missing": len(missing)}
        click.echo(json_text({"schema_version": 1} | counts | {"files": rows}))
    elif not quiet:
        for v in verdicts:
            note = " (not in the list)" if v.state == "unknown" else ""
            click.echo(f"{v.state:7}  {one_line(v.file)}  {v.fault or v.checked}{note}")
    if damaged:
        others = f"; {_of(missing, verdicts)} missing" if missing else ""
        raise ModelFileError(
            f"{_of(damaged, verdicts)} damaged, first {damaged[0].file}: {damaged[0].fault}{others}", path=path
        )
    if missing:
        raise StorageError(
            f"{one_line(str(path))}: {_of(missing, verdicts)} missing, first {missing[0].file}; the others are sound",
            (". Use ", Argument("ignore_missing", True), " to check those alone"),
        )


def _of(some: Sequence[Verdict], verdicts: Sequence[Verdict]) -> str:
    return f"{len(some)} of {len(verdicts)} files {'is' if len(some) == 1 else 'are'}"


def _total_bytes(path: Path) -> int:
    files = path.glob("*.gguf") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.exists())
