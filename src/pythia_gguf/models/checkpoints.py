"""All checkpoints of one training run, with what each had seen: a run of one's own, or a model of the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pythia_gguf.arguments import whole_number
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.hub.client import Hub
from pythia_gguf.hub.model_name import MAIN, parse_model_name
from pythia_gguf.hub.run_folder import steps_in

_BRANCH = re.compile(r"step(\d{1,9})")
_WITH_QUANT = re.compile(r"(?P<run>.+):(?P<quant>\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint of a run.

    name    as every command takes it: "pythia-70m@step3000:Q8_0"
    branch  "step3000"
    n_rows  rows of training that it had seen, from row 0 on
    """

    name: str
    branch: str
    n_rows: int


def find_checkpoints(model: str | os.PathLike[str], batch: int = 1024) -> list[Checkpoint]:
    """The checkpoints of a run, the earliest first.

    model   NAME or a folder of stepN folders, with :QUANT or without; of the Pythia suite nothing is asked of the Hub
    batch   rows of a step; a model of the suite knows its own
    Raises  UsageError where there is no step, or one was chosen; NetworkError
    """
    whole_number(1, 2**20)("batch", batch)
    text = os.fspath(model)
    # 1. A folder wins over a name, as everywhere; what follows its last colon may be a quant.
    match = None if os.path.lexists(text) else _WITH_QUANT.fullmatch(text)
    run, quant = (match["run"], f":{match['quant']}") if match else (text, "")
    if os.path.isdir(run):
        steps = steps_in(Path(run))
        if not steps:
            raise UsageError(f"{one_line(run)}: no folder stepN here. Give the folder that holds the steps of a run")
        return [Checkpoint(name=f"{run}@step{n}{quant}", branch=f"step{n}", n_rows=n * batch) for n in steps]
    whole = run.rpartition("@")[0]
    if os.path.isdir(whole):
        raise UsageError(f"{one_line(text, 100)}: all steps are looked at. Give {one_line(whole, 100)} without one")
    # 2. The suite's steps are known. Of other models, branches are steps.
    try:
        name = parse_model_name(text)
    except UsageError as e:
        raise UsageError(f"{one_line(text, 100)}: no such folder, and as a name: {e}") from None
    if name.revision != MAIN or name.file is not None:
        raise UsageError(f"{one_line(text, 100)}: all steps are looked at. Give {name.repo_id} without one")
    if name.model is not None:
        seen = {f"step{n}": name.model.step(n).sequences for n in name.model.steps}
    else:
        matches = sorted((int(m[1]), m[0]) for m in map(_BRANCH.fullmatch, Hub().branches(name.repo_id)) if m)
        seen = {branch: n * batch for n, branch in matches}
    if not seen:
        raise UsageError(f"{name.repo_id}: none of its branches is called stepN")
    return [Checkpoint(name=str(replace(name, revision=b)), branch=b, n_rows=n) for b, n in seen.items()]


def around(checkpoints: Sequence[Checkpoint], row: int) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The last checkpoint that had not seen a row, and the first one that had; None where there is none."""
    before = [c for c in checkpoints if c.n_rows <= row]
    after = [c for c in checkpoints if c.n_rows > row]
    return (before[-1] if before else None), (after[0] if after else None)
