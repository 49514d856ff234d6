"""Scores that EleutherAI published for Pythia, OPT and BLOOM, and whether another run agrees with them.

Source: EleutherAI/pythia a19eecb, evals/ (Apache License 2.0), the JSON files of lm-evaluation-harness 83dbfbf; steps
are those of the Hub's branches. published_final.csv holds the last step of every model, published_steps.csv
pythia-410m-deduped through its training, v0 and v1. No scores of GPT-Neo are among them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from pythia_gguf.evals.scores import Items, Score

TASKS = ("lambada_openai", "piqa", "winogrande", "arc_challenge", "sciq")
# The items of each published task that has an accuracy.
N_ITEMS = {
    "lambada_openai": 5153,
    "piqa": 1838,
    "winogrande": 1267,
    "arc_challenge": 1172,
    "arc_easy": 2376,
    "sciq": 1000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
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
def final_scores() -> tuple[PublishedScore, ...]:
    """The published scores of the last step of every model."""
    return _read("published_final.csv")


@cache
def step_scores() -> tuple[PublishedScore, ...]:
    """The published scores of pythia-410m-deduped, step by step."""
    return _read("published_steps.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A score of a run beside the published one, and that one's standard error."""

    score: Score
    published: float
    stderr: float

    @property
    def items(self) -> Items:
        """The items that were asked, out of those that the published score is about."""
        items = self.score.items
        return items if items.asked is None else replace(items, whole=N_ITEMS[self.score.task])

    @property
    def distance(self) -> float | None:
        """How far apart the scores are, in standard errors; None where the two are about different items."""
        items = self.items
        is_of_same = not items.is_part and items.asked in (None, items.whole)
        return abs(self.score.value - self.published) / self.stderr if is_of_same else None

    @property
    def agrees(self) -> bool | None:
        """Whether they are less than a standard error apart; None as for `distance`."""
        return None if self.distance is None else self.distance <= 1


def agreements(scores: Iterable[Score], suite: str, model: str) -> list[Agreement]:
    """The scores of a run that were also published, with as many examples in the prompt."""
    known = {(p.task, p.metric, p.shots): p for p in final_scores() if (p.suite, p.model) == (suite, model)}
    found = []
    for score in scores:
        metric = {"perplexity": "ppl"}.get(plain := score.metric.partition(",")[0], plain)
        if (p := known.get((score.task, metric, score.shots or 0))) is not None:
            found.append(Agreement(score=replace(score, metric=metric), published=p.value, stderr=p.stderr))
    return found


def _read(name: str) -> tuple[PublishedScore, ...]:
    text = (resources.files("pythia_gguf.evals") / name).read_text("utf-8")
    return tuple(
        PublishedScore(
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
