"""Reports of `pythia measure` and results of lm_eval, read from their files: what they hold is checked here, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError, PythiaGGUFError, one_line
from pythia_gguf.json_file import read_json_object

SCHEMA_VERSION = 1
# null: the figure does not exist, and `missing` says why.
_FIGURE = (float, None)
_FIGURES = ("ppl", "ppl_error", "ln_ratio", "ln_ratio_error", "kl_mean", "kl_error", "kl_p999", "same_top1")
# Older reports have no hashes; code that needs them says so.
_MODEL = {"file": str, "ppl": _FIGURE, "ppl_error": _FIGURE, "missing?": str, "folder?": str, "sha256?": str}
_REPORT = {
    "schema_version": int,
    "tool_version": str,
    "gelu": str,
    "reference": _MODEL,
    "text": {"file": str, "sha256?": str, "context": int, "windows": int, "scored_tokens": int},
    "files": [
        _MODEL
        | dict.fromkeys(_FIGURES, _FIGURE)
        | {
            "quant": str,
            "activations": str,
            "gelu?": str,
            "kv?": str,
            "note?": str,
            "alias_of?": str,
            "bytes": int,
            "bits_per_weight": float,
        }
        | {"prefill_tokens_per_s?": float, "decode_tokens_per_s?": float, "against?": _MODEL},
    ],
}
# In both layouts: task -> metric -> value.
_RESULTS = {"results": {"*": dict}}
_OURS = {"file": str, "activations": str, "gelu": str, "encoding": str, "kv?": str, "quant?": str, "sha256?": str}
_OUR_RESULTS = _RESULTS | {"config": {"pythia_gguf": _OURS, "limit?": _FIGURE}}


def read_report(path: Path) -> dict[str, Any]:
    """A report of `pythia measure`; raises ModelFileError for anything else, StorageError."""
    what = "a report of pythia measure"
    report = read_json_object(path, _REPORT, what=what)
    if report["schema_version"] != SCHEMA_VERSION:
        raise ModelFileError(f"not {what}: expected schema {SCHEMA_VERSION}, got {report['schema_version']}", path=path)
    if not report["files"]:
        raise ModelFileError(f"not {what}: it has no files", path=path)
    return report


def read_results(path: Path, *, ours: bool) -> dict[str, Any]:
    """Results of lm_eval in either layout; raises ModelFileError for anything else, StorageError.

    ours  whether they must name their file, as results of `pythia eval` do
    """
    if ours:
        return read_json_object(path, _OUR_RESULTS, what="results of pythia eval")
    return read_json_object(path, _RESULTS, what="results of lm_eval", allow_nan=True)  # as it writes them


def reference_of(report: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a file of a report was compared with."""
    reference: Mapping[str, Any] = row.get("against", report["reference"])
    return reference


def labels(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each row: its quant, and its file where two have one quant under one kind of activations."""
    n_of = Counter((row["quant"], row["activations"]) for row in rows)
    return [
        row["quant"] if n_of[row["quant"], row["activations"]] == 1 else f"{row['quant']} ({place(row)})"
        for row in rows
    ]


def place(row: Mapping[str, Any]) -> str:
    """Name of a file, with its folder where a report has two of that name."""
    return f"{row['folder']}/{row['file']}" if "folder" in row else str(row["file"])


def change(row: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
    """How far the perplexity of a file is above the reference's, as a part of it; None where one does not exist."""
    if row["ppl"] is None or not reference["ppl"]:
        return None
    result: float = row["ppl"] / reference["ppl"] - 1
    return result if abs(result) < float("inf") else None


def lost_report(path: Path, planned: Mapping[str, Any]) -> str | None:
    """What a report on the disk says that a planned one will not; None: nothing.

    planned  `reference`, `text` and `files` with what is known before measuring
    """
    try:
        old = read_report(path)
    except PythiaGGUFError:
        return "is no report of pythia measure"
    if any(old["text"].get(key) != planned["text"][key] for key in ("sha256", "context", "windows")):
        return "is about another text, or windows of it"
    if old["reference"]["file"] != planned["reference"]["file"]:
        return "compares with another reference"
    kept = {_measured(row) for row in planned["files"]}
    lost = [f"{place(row)} with {row['activations']}" for row in old["files"] if _measured(row) not in kept]
    return f"is of more files: {', '.join(lost[:3])}" if lost else None


def lost_results(
    path: Path, facts: Mapping[str, Any], tasks: Sequence[str], n_shots: int | None, limit: int | None
) -> str | None:
    """What results on the disk say that planned ones will not; None: nothing.

    facts    of the model, as the harness's results have them under `pythia_gguf`
    tasks    that will be run
    n_shots  examples in each prompt that were asked for; None: as the task says
    limit    items of each; None: all
    """
    try:
        old = read_results(path, ours=True)
    except PythiaGGUFError:
        return "is no results of pythia eval"
    was = old["config"]["pythia_gguf"]
    if any(was.get(key) != facts[key] for key in ("file", "sha256", "activations", "gelu", "kv", "encoding")):
        return f"is about another model or another way to run it ({one_line(was['file'], 60)})"
    if was.get("num_fewshot") != n_shots:
        return "is about another number of examples in the prompts"
    if old["config"].get("limit") != limit:
        return "is about another number of items"
    lost = [one_line(task, 60) for task in old["results"] if task not in tasks]
    return f"is of more tasks: {', '.join(lost[:3])}" if lost else None


def _measured(row: Mapping[str, Any]) -> tuple[object, ...]:
    return row.get("folder"), row["file"], row["activations"], row.get("gelu")
