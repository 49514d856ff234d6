"""A run of one's own: a folder that holds a folder stepN for each step, as `publish --branches` sends it.

RUN@stepN names one of them, as NAME@stepN names a branch of the Hub. What a step's folder holds, others look at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import UsageError, nearest, one_line
from pythia_gguf.hub.model_name import MAIN, step_number
from pythia_gguf.hub.suite import nearest_steps

_STEP = re.compile(r"step(\d+)")
# More steps than these are not listed one by one.
_MOST_LISTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """A step of a run.

    run     the folder of all its steps
    branch  what the step is called on the Hub: "step3000", or "main" for the last one
    folder  that holds the step
    """

    run: Path
    branch: str
    folder: Path

    def __str__(self) -> str:
        """The name as somebody else can give it who has the folder: "my-run@step3000"."""
        return f"{self._run_name}@{self.branch}"

    @property
    def base_name(self) -> str:
        """NAME of what is made from it: "my-run-step3000", and of the last step, as of a branch main, "my-run"."""
        return self._run_name if self.branch == MAIN else f"{self._run_name}-{self.branch}"

    @property
    def _run_name(self) -> str:
        return os.path.basename(os.path.abspath(self.run))


def steps_in(folder: Path) -> dict[int, Path]:
    """The folders of steps in a folder, by number and in order; none where it is no run.

    Raises UsageError where two are of one step, such as step1 and step01
    """
    found: dict[int, Path] = {}
    for path in sorted(_paths_in(folder)):
        match = _STEP.fullmatch(path.name) if path.is_dir() else None
        if match and (other := found.setdefault(int(match[1]), path)) != path:
            raise UsageError(
                f"{one_line(str(folder))}: {other.name} and {path.name} are one step. Rename or move one of them"
            )
    return dict(sorted(found.items()))


def _paths_in(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it cannot be read, which others say who read its files."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def find_step(run: Path, step: str) -> RunStep | None:
    """A step by its number or as "step3000", or the last one as "main"; None where the folder holds no steps.

    Raises UsageError that says which steps there are
    """
    steps = steps_in(run)
    if not steps:
        return None
    if step == MAIN:
        return RunStep(run=run, branch=MAIN, folder=steps[max(steps)])
    n, place = step_number(step), one_line(str(run))
    if n is None:
        hint = nearest(step, (MAIN, *(f"step{n}" for n in steps))) or "."
        raise UsageError(f"{place}: {one_line(step, 100)!r} is no step{hint} {steps_text(steps)}")
    if n not in steps:
        raise UsageError(f"{place}: no step{n} here. {nearest_steps(n, steps)}. {steps_text(steps)}")
    return RunStep(run=run, branch=f"step{n}", folder=steps[n])


def steps_text(steps: Iterable[int]) -> str:
    """Which steps there are, as a sentence without its full stop."""
    names = [f"step{n}" for n in steps]
    if len(names) > _MOST_LISTED:
        return f"There are {len(names)} steps: {', '.join(names[:3])} to {names[-1]}"
    return f"There {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
