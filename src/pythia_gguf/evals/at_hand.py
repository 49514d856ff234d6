"""Whether reports and results are about the files that lie in a folder now.

A file is identified by its name and its SHA-256, as the report or result has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError, UsageError, one_line
from pythia_gguf.evals.report import reference_of
from pythia_gguf.press.manifest import MANIFEST, changed_files, read_manifest, still_there

# A file in a report or in results: it has a "file" and, since this version, a "sha256".
Named = Mapping[str, Any]


def files_at_hand(folder: Path) -> dict[str, str] | None:
    """Listed files that are there -> SHA-256 of each as it is now; None for a folder without a manifest.

    Raises ModelFileError for a file that is not what the manifest says.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    there = still_there(manifest, folder)
    if changed := changed_files(folder, there):
        raise ModelFileError(
            f"says other hashes than these files have: {_listed(changed)}. Make them again, or see `pythia verify`",
            path=folder / MANIFEST,
        )
    return {entry["file"]: entry["sha256"] for entry in there["files"]}


def measured_files(report: Mapping[str, Any]) -> list[Named]:
    """The files that a report is about, those that others were compared with included."""
    rows = report["files"]
    return [*rows, *(reference_of(report, row) for row in rows)]


def refuse_others(path: Path, files: Iterable[Named], there: Mapping[str, str], again: str) -> None:
    """Raise UsageError for files of a report or of results whose bytes have changed, or whose hash is not known.

    there  the files of a folder; files that are not among them do not matter
    again  what to do, as "Measure again"
    """
    named = {(file["file"], file.get("sha256")) for file in files if file["file"] in there}
    if others := sorted(file for file, sha256 in named if sha256 not in (None, there[file])):
        raise UsageError(f"{one_line(str(path))}: measured other files than lie there now: {_listed(others)}. {again}")
    if unknown := sorted(file for file, sha256 in named if sha256 is None):
        raise UsageError(
            f"{one_line(str(path))}: does not say which bytes it is about (no sha256, from an older version):"
            f" {_listed(unknown)}. {again}"
        )


def _listed(files: list[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(one_line(file, 60) for file in files[:3]) + more
