"""`pythia verify --against`: for each file whether it is what a source gives, and what differs.

A line for each file, a few more for what differs; exit code 65 unless all are the same byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.inspect import shown_value
from pythia_gguf.errors import Argument, ModelFileError, StorageError, one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.press.against import Comparison, Fit, KeyDifference

# Lines about one file.
_MOST_LINES = 10


def compare(
    place: str,
    against: str,
    imatrix: Path | None,
    threads: int | None,
    ignore_missing: bool,
    output_format: str,
    quiet: bool,
) -> None:
    """Compare, print and end with the exit code of the worst."""
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.press.against import verify_against
    from pythia_gguf.press.find_source import find_path

    with contextlib.nullcontext() if quiet else make_progress() as progress:
        path = find_path(place, progress)
        compared = verify_against(
            path, against, imatrix=imatrix, threads=threads, ignore_missing=ignore_missing, progress=progress
        )
    differing = [c for c in compared if c.state not in ("identical", "missing")]
    missing = [c for c in compared if c.state == "missing"]
    if output_format == "json":
        is_ok = not differing and not missing
        rows = [_as_json(c) for c in compared]
        click.echo(json_text({"schema_version": 1, "ok": is_ok, "against": against, "files": rows}))
    elif not quiet:
        for c in compared:
            click.echo(f"{c.state:10}  {one_line(c.file)}  {'; '.join(_told(c, imatrix))}")
            for line in _details(c):
                click.echo(f"            {line}")
    first = [f", first {c.file}: {c.fault}" for c in (*differing, *missing)[:1]]
    if differing:
        n_made = sum(c.derives for c in differing)
        made = f", {n_made} of them with its tensors" if n_made else ""
        raise ModelFileError(
            f"{len(differing)} of {len(compared)} files differ from what {one_line(against)} gives{made}{first[0]}",
            path=path,
        )
    if missing:
        raise StorageError(
            f"{one_line(str(path))}: {len(missing)} of {len(compared)} files are missing{first[0]}; the others are"
            " identical",
            (". Use ", Argument("ignore_missing", True), " to compare those alone"),
        )


def _told(c: Comparison, imatrix: Path | None) -> Iterator[str]:
    if c.fault is not None:
        yield c.fault
    if c.fits and c.state != "differs":
        yield f"every tensor is the one that {_fits_text(c.fits)} has" if c.fault else _fits_text(c.fits)
    if c.state == "differs" and c.imatrix is not None and imatrix is None:
        yield f"its keys name the importance matrix {one_line(c.imatrix, 100)}: give it with --imatrix"


def _fits_text(fits: tuple[Fit, ...]) -> str:
    """As in "Q8_0 of mixes 2026 and 2024"."""
    mixes: dict[tuple[str, bool], list[str]] = {}
    for fit in fits:
        mixes.setdefault((fit.quant, fit.has_imatrix), []).append(fit.mix)
    said = []
    for (quant, has_imatrix), names in mixes.items():
        of = f" of mix{'es' if len(names) > 1 else ''} {' and '.join(names)}" if names != [""] else ""
        said.append(f"{quant}{of}{' with the importance matrix' if has_imatrix else ''}")
    return " or ".join(said)


def _details(c: Comparison) -> Iterator[str]:
    """What differs, the first of it."""
    lines = [f"{one_line(name)}: {why}" for name, why in c.tensors.items()]
    for d in c.keys:
        said, expected = _both(d)
        lines.append(f"{one_line(d.key)}: {said or 'missing'}, expected {expected or 'no such key'}")
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"and {len(lines) - _MOST_LINES} more"


def _as_json(c: Comparison) -> dict[str, object]:
    return {
        "file": c.file,
        "state": c.state,
        "derives": c.derives,
        "bytes": c.n_bytes,
        "fits": [{"quant": f.quant, "mix": f.mix or None, "imatrix": f.has_imatrix} for f in c.fits],
        "n_tensors": c.n_tensors,
        "tensors": dict(c.tensors),
        "keys": [{"key": d.key, "in_file": _both(d)[0], "expected": _both(d)[1]} for d in c.keys],
        "fault": c.fault,
    }


def _both(d: KeyDifference) -> tuple[str | None, str | None]:
    """Both values, with their types where they look the same; None for one that is not there."""
    from pythia_gguf.gguf.container import type_name

    if d.in_file is None or d.expected is None:
        return (None, shown_value(d.expected)) if d.in_file is None else (shown_value(d.in_file), None)
    said, expected = shown_value(d.in_file), shown_value(d.expected)
    if said != expected:
        return said, expected
    return f"{type_name(d.in_file)} {said}", f"{type_name(d.expected)} {expected}"
