"""What a checkpoint is like while its training goes on: a sentence that it writes, and what quants would cost it."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.arguments import whole_number
from pythia_gguf.errors import UsageError
from pythia_gguf.evals.files import measure_files
from pythia_gguf.files import write_text
from pythia_gguf.json_file import read_text
from pythia_gguf.models.load import load
from pythia_gguf.plan.quants import canonical, select_quants
from pythia_gguf.press.quantize import quantize

COLUMNS = ("step", "quant", "kl_mean", "kl_error", "ppl", "same_top1")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantCost:
    """What a quant costs a checkpoint, as `pythia measure` tells it."""

    step: int
    quant: str
    kl_mean: float
    kl_error: float
    ppl: float
    same_top1: float


def watched_quants(text: str) -> list[str]:
    """Quants by their own names; raises UsageError for a name of none."""
    return [canonical(chosen.name) for chosen in select_quants(text, "watch_quants")]


def sample_sentence(folder: Path, prompt: str = "", *, seed: int = 1, max_tokens: int = 32) -> str:
    """What a checkpoint writes first, at temperature 0.8; raises UsageError where it has no tokenizer."""
    whole_number(1)("max_tokens", max_tokens)
    return load(folder).generate(prompt, max_tokens=max_tokens, temperature=0.8, seed=seed).text


def quant_costs(
    folder: Path, step: int, quants: Sequence[str], text: Path, *, context: int, n_windows: int = 8
) -> list[QuantCost]:
    """Quantize a checkpoint and measure each quant against its unquantized weights.

    text       file of a text that the training does not see
    context    tokens of a window
    n_windows  at most so many
    Raises     as `press.quantize.quantize` and `evals.files.measure_files`
    """
    with tempfile.TemporaryDirectory(prefix=".watch-", dir=folder.parent) as work:
        quantize(folder, Path(work) / "made", quants=list(quants), keep_f16=True)
        report = measure_files([Path(work) / "made"], text=text, context=context, n_windows=n_windows)
    names = {canonical(name) for name in quants}
    return [
        QuantCost(
            step=step,
            quant=row["quant"],
            kl_mean=row["kl_mean"],
            kl_error=row["kl_error"] or 0.0,
            ppl=row["ppl"],
            same_top1=row["same_top1"],
        )
        for row in report["files"]
        if row["quant"] in names and row["kl_mean"] is not None
    ]


def keep_costs(run: Path, costs: Sequence[QuantCost]) -> Path:
    """Put the costs of a step into RUN/quants.csv, in place of those that are there; returns the path."""
    path, new = run / "quants.csv", {(cost.step, cost.quant) for cost in costs}
    old = list(csv.DictReader(io.StringIO(read_text(path, _MOST_BYTES)))) if path.exists() else []
    if old and tuple(old[0]) != COLUMNS:
        raise UsageError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    rows = [row for row in old if (int(row["step"]), row["quant"]) not in new]
    rows += [{name: str(getattr(cost, name)) for name in COLUMNS} for cost in costs]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: int(row["step"])))
    write_text(path, out.getvalue())
    return path
