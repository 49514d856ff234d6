"""Scores that EleutherAI published of Pythia, OPT and BLOOM, and whether another run agrees with them.

Knows no model that runs. Source: EleutherAI/pythia a19eecb, evals/ (Apache License 2.0), the JSON files of
lm-evaluation-harness 83dbfbf; steps are those of the Hub's branches. published_final.csv holds the last step of every
model, published_steps.csv pythia-410m-deduped through its training, v0 and v1. No scores of GPT-Neo are among them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeGuard

TASKS = ("lambada_openai", "piqa", "winogrande", "arc_challenge", "sciq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One value.

    suite   "v0" or "v1" of Pythia, "opt", "bloom"
    model   as there: "pythia-410m-deduped", "opt-350m"
    shots   examples in the prompt
    step    of the Hub's branch; None for models without
    metric  "acc", "acc_norm" or "ppl"
    """

    suite: str
    model: str
    shots: int
    step: int | None
    task: str
    metric: str
    value: float
    stderr: float


@cache
def final_scores() -> tuple[Published, ...]:
    """Of the last step of every model."""
    return _read("published_final.csv")


@cache
def step_scores() -> tuple[Published, ...]:
    """Of pythia-410m-deduped, step by step."""
    return _read("published_steps.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A value of a run beside the published one; `distance` in standard errors of the published one."""

    task: str
    metric: str
    value: float
    published: float
    stderr: float

    @property
    def distance(self) -> float:
        """How far apart they are."""
        return abs(self.value - self.published) / self.stderr

    @property
    def agrees(self) -> bool:
        """Whether by less than a standard error."""
        return self.distance <= 1


def agreements(results: Mapping[str, Any], suite: str, model: str, shots: int = 0) -> list[Agreement]:
    """Values of a run that were published too.

    results  task -> metric -> value, as lm-evaluation-harness writes them: "acc,none" or "acc"
    """
    known = {(p.task, p.metric): p for p in final_scores() if (p.suite, p.model, p.shots) == (suite, model, shots)}
    found = []
    for task, metrics in results.items():
        for name, value in metrics.items():
            metric = {"perplexity": "ppl"}.get(plain := name.partition(",")[0], plain)
            if (task, metric) in known and is_figure(value):
                p = known[task, metric]
                found.append(
                    Agreement(task=task, metric=metric, value=float(value), published=p.value, stderr=p.stderr)
                )
    return found


def is_figure(value: object) -> TypeGuard[int | float]:
    """Whether a value of results is a number; the harness writes "N/A" and NaN for what it cannot tell."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(name: str) -> tuple[Published, ...]:
    text = (resources.files("pythia_gguf.evals") / name).read_text("utf-8")
    return tuple(
        Published(
            suite=row["suite"],
            model=row["model"],
            shots=int(row["shots"]),
            step=int(row["step"]) if row["step"] else None,
            task=row["task"],
            metric=row["metric"],
            value=float(row["value"]),
            stderr=float(row["stderr"]),
        )
        for row in csv.DictReader(text.splitlines())
    )
