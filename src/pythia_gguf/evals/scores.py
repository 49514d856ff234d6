"""Scores of tasks, read from results of lm_eval in either layout, each with the items that it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

# Beside the metrics of a task. In the harness's layout, which has an alias, these have a comma in their names.
_NO_METRICS = {"name", "alias", "sample_len", "sample_count"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """How many items a score is about.

    asked  items that were asked; None: results do not say it
    whole  items that the task has; None: results do not say it
    limit  the first so many were requested; None: all
    """

    asked: int | None
    whole: int | None
    limit: float | None

    @property
    def is_part(self) -> bool:
        """Whether some items were not asked."""
        return self.limit is not None if self.asked is None or self.whole is None else self.asked < self.whole

    def __str__(self) -> str:
        if self.asked is None:
            return "" if self.limit is None else f"the first {self.limit:,}"
        return f"{self.asked:,} of {self.whole:,}" if self.is_part and self.whole is not None else f"{self.asked:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One value.

    metric  with its filter, where that is not the harness's "none"
    stderr  standard error; None: there is none
    shots   examples in the prompt; None: results do not say it
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    shots: int | None
    items: Items


def scores_of(results: Mapping[str, Any]) -> list[Score]:
    """Every value of results in the layout of the harness or of EleutherAI/pythia."""
    shots, items = _shots(results), items_of(results)
    return [
        Score(
            task=task,
            metric=name if filtered in ("", "none") else f"{name},{filtered}",
            value=value,
            stderr=float(error) if is_figure(error := metrics.get(f"{name}_stderr{comma}{filtered}")) else None,
            shots=shots.get(task),
            items=items[task],
        )
        for task, metrics in results["results"].items()
        for name, comma, filtered, value in values(metrics)
        if not name.endswith("_stderr")
    ]


def values(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """(metric, comma, filter, value) of each number of a task, errors too."""
    is_harness = "alias" in metrics
    for key, value in metrics.items():
        name, comma, filtered = key.partition(",")
        if is_figure(value) and (comma or not is_harness) and key not in _NO_METRICS:
            yield name, comma, filtered, float(value)


def items_of(results: Mapping[str, Any]) -> dict[str, Items]:
    """Task or group -> its items."""
    config = _object(results, "config")
    counts = _object(results, "n-samples") or _object(_object(config, "pythia_gguf"), "n-samples")
    inside, limit = _object(results, "group_subtasks"), config.get("limit")
    found = {}
    for task in results["results"]:
        of_each = [_object(counts, name) for name in _leaves(task, inside)]
        asked, whole = ([count.get(key) for count in of_each] for key in ("effective", "original"))
        found[task] = Items(asked=_sum(asked), whole=_sum(whole), limit=limit if is_figure(limit) else None)
    return found


def is_figure(value: object) -> TypeGuard[int | float]:
    """Whether a value of results is a number; the harness writes "N/A" and NaN for values that it does not have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _leaves(task: str, inside: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, those of groups in it too; a task itself."""
    seen, leaves, left = {task}, [], [task]
    while left:
        name = left.pop()
        children = inside.get(name)
        if not isinstance(children, list) or not children:
            leaves.append(name)
            continue
        fresh = {child for child in children if isinstance(child, str)} - seen
        seen |= fresh
        left += fresh
    return leaves


def _sum(counts: list[Any]) -> int | None:
    whole = [n for n in counts if isinstance(n, int) and not isinstance(n, bool)]
    return sum(whole) if whole and len(whole) == len(counts) else None


def _object(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, Mapping) else {}


def _shots(results: Mapping[str, Any]) -> dict[str, int]:
    """Task -> examples in its prompts: one number for each in the harness's layout, one for all in EleutherAI's."""
    shots = results.get("n-shot", _object(results, "config").get("num_fewshot"))
    of_each = shots if isinstance(shots, dict) else dict.fromkeys(results["results"], shots)
    return {task: n for task, n in of_each.items() if isinstance(n, int) and not isinstance(n, bool)}
