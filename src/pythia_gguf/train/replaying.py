"""One step of a run again: is what stands in its log, and in its checkpoint, really that step?"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.arguments import checked, whole_number
from pythia_gguf.errors import Argument, ModelFileError, UsageError, one_line
from pythia_gguf.hub.run_folder import steps_in
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.train.checkpoints import load_state, newest_state, told_of
from pythia_gguf.train.options import TrainOptions
from pythia_gguf.train.recipe import read_recipe
from pythia_gguf.train.rows import TrainingRows, is_same_data
from pythia_gguf.train.run_log import Line, read_log
from pythia_gguf.train.training import batches, check_options, deterministic, new_trainer, one_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A step that was done again.

    before      step of the checkpoint from which it was done; 0 with fresh weights too
    found       what came of it
    logged      what RUN/log.csv says of it, or None
    checkpoint  digest of the weights in RUN/stepN, where there is such a checkpoint
    """

    step: int
    before: int
    found: Line
    logged: Line | None
    checkpoint: str | None

    @property
    def is_same(self) -> bool:
        """Whether everything that is known of the step has the digest that was found."""
        told = [d for d in (self.logged and self.logged.digest, self.checkpoint) if d is not None]
        return all(digest == self.found.digest for digest in told)


@checked
def replay(
    run: str | os.PathLike[str],
    step: int,
    *,
    data: str | os.PathLike[str] | None = None,
    options: TrainOptions | None = None,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Replay:
    """Do the steps from the nearest sound checkpoint before one, that one included, and compare.

    data    where the rows are now; None: where they were
    Raises  UsageError where nothing is known of the step; StorageError, ModelFileError
    """
    place, progress = Path(run), progress or Silence()
    recipe = read_recipe(place / "recipe.yaml")
    whole_number(1, recipe.steps)("step", step)
    options = options or TrainOptions()
    check_options(options, recipe)
    logged = read_log(place).get(step)
    own = steps_in(place).get(step)
    checkpoint = told_of(own)["digest"] if own is not None else None
    if logged is None and checkpoint is None:
        raise UsageError(Argument("step"), f": {one_line(str(place))} knows nothing of step {step}")
    with ExitStack() as stack:
        stack.enter_context(deterministic(options))
        trainer = new_trainer(recipe, options)
        found = newest_state(place, step, tell)
        if found is not None:
            load_state(trainer, *found)
        rows = TrainingRows(os.fspath(data if data is not None else _data_of(place)), recipe, progress)
        stack.callback(rows.close)
        known = found[1] if found else told_of(next(iter(steps_in(place).values())))
        if not is_same_data(known["data"], rows.identity):
            raise UsageError(Argument("data"), " is not what the run was trained on")
        before = trainer.step
        progress.stage("replaying", step - before, "steps")
        for batch in batches(trainer, rows, step):
            line = one_step(trainer, batch)
            progress.advance(f"step {line.step}", 1)
    return Replay(step=step, before=before, found=line, logged=logged, checkpoint=checkpoint)


def _data_of(run: Path) -> str:
    """Where the data of a run were."""
    for folder in steps_in(run).values():
        name = told_of(folder)["data"].get("name")
        if isinstance(name, str):
            return name
    raise ModelFileError("no step says which data it saw", path=run)
