"""A training, from its recipe to a run of checkpoints; killed at any step, it goes on to the same bits.

RUN/recipe.yaml     how the model is trained
RUN/log.csv         a line for each step
RUN/stepN/          checkpoints, see train/checkpoints.py
RUN/tensorboard/    the log again, for TensorBoard, where it is installed
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from pythia_gguf.arguments import checked, one_of, whole_number
from pythia_gguf.errors import Argument, NotFiniteError, UsageError, one_line
from pythia_gguf.files import check_folder_place, storage_error, write_text
from pythia_gguf.hub.run_folder import steps_in
from pythia_gguf.lock import lock
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.train.checkpoints import (
    between,
    drop_state,
    load_state,
    made_with,
    newest_state,
    recipe_of,
    remove_unfinished,
    save_checkpoint,
    states_in,
)
from pythia_gguf.train.model import Transformer, init_weights
from pythia_gguf.train.options import DEVICES, DTYPES, TrainOptions
from pythia_gguf.train.recipe import Recipe, find_recipe
from pythia_gguf.train.rows import TrainingRows, is_same_data, tokenizer_of
from pythia_gguf.train.run_log import Line, RunLog
from pythia_gguf.train.update import Trainer, digest

RESUMES = ("auto", "never")


class Watcher(Protocol):
    """Sees what goes on in a training."""

    def begin(self, n_left: int) -> None:
        """Steps begin; so many are left."""

    def step(self, line: Line, n_left: int) -> None:
        """A step is done, and after it there are so many."""

    def checkpoint(self, folder: Path, trainer: Trainer) -> None:
        """A checkpoint is in its place."""

    def tell(self, line: str) -> None:
        """Something happened that people should know, in a line."""


class Quiet:
    """Nobody watches."""

    def begin(self, n_left: int) -> None:
        """Says nothing."""

    def step(self, line: Line, n_left: int) -> None:
        """Says nothing."""

    def checkpoint(self, folder: Path, trainer: Trainer) -> None:
        """Says nothing."""

    def tell(self, line: str) -> None:
        """Says nothing."""


@checked
def train(
    recipe: Recipe | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    resume: str = "auto",
    options: TrainOptions | None = None,
    watcher: Watcher | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a model; returns the folder of its last checkpoint.

    recipe   a `Recipe`, a YAML file, or the name of a model of the suite
    out      RUN, a folder of its own
    data     PREFIX, whose order is made if it has none, or the name of a published data set
    resume   "auto": go on from the newest sound checkpoint in RUN; "never": refuse a RUN that has one
    Raises   UsageError, StorageError, ModelFileError, NetworkError, LockedError
    """
    one_of("resume", resume, RESUMES)
    recipe = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    options, watcher, run = options or TrainOptions(), watcher or Quiet(), Path(out)
    check_options(options, recipe)
    check_folder_place(run)
    if resume == "never" and run.is_dir() and steps_in(run):
        raise UsageError(f"{one_line(str(run))}: holds a run already. Go on with it by ", Argument("resume", "auto"))
    with ExitStack() as stack:
        rows = TrainingRows(os.fspath(data), recipe, progress or Silence())
        stack.callback(rows.close)
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise storage_error(run, e) from e
        stack.enter_context(lock(run / ".train.lock"))
        stack.enter_context(deterministic(options))
        trainer = begin(recipe, run, rows, options, watcher)
        return _go_on(trainer, run, rows, os.fspath(data), options, watcher)


def check_options(options: TrainOptions, recipe: Recipe) -> None:
    """Raises UsageError for options that cannot be."""
    one_of("dtype", options.dtype, DTYPES)
    one_of("device", options.device, DEVICES)
    whole_number(0)("keep_states", options.keep_states)
    for name in ("micro", "threads"):
        if (value := getattr(options, name)) is not None:
            whole_number(1)(name, value)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(Argument("device"), ": torch finds no GPU here. Use ", Argument("device", "cpu"))
    if recipe.precision == "float16" and options.device == "cpu":
        raise UsageError("precision float16 needs a GPU. For a CPU, write bfloat16 or float32 into the recipe")


def begin(recipe: Recipe, run: Path, rows: TrainingRows, options: TrainOptions, watcher: Watcher) -> Trainer:
    """A trainer with fresh weights, or where the newest sound checkpoint of a run is.

    Raises UsageError where the run has another recipe or other data
    """
    remove_unfinished(run)
    trainer = new_trainer(recipe, options)
    found = newest_state(run, warn=watcher.tell)
    if found is None:
        if steps_in(run):
            raise UsageError(f"{one_line(str(run))}: holds steps, but none that training can go on from")
        write_text(run / "recipe.yaml", recipe.as_yaml())
        return trainer
    folder, told = found
    theirs = recipe_of(told, folder)
    if _decisive(theirs) != _decisive(recipe):
        raise UsageError(f"{one_line(str(run))}: is a run of another recipe: {_difference(theirs, recipe)}")
    if not is_same_data(told["data"], rows.identity):
        raise UsageError(f"{one_line(str(run))}: is a run over other data, {one_line(str(told['data'].get('name')))}")
    load_state(trainer, folder, told)
    if told["step"] < recipe.steps:
        watcher.tell(f"going on after {folder.name}")
    for name, now in made_with(trainer).items():
        if told["made_with"].get(name) != now:
            watcher.tell(f"{name} was {told['made_with'].get(name)}, now {now}: later weights may differ in last bits")
    return trainer


def new_trainer(recipe: Recipe, options: TrainOptions) -> Trainer:
    """A trainer before its first step, and torch's own generator as it is there."""
    torch.manual_seed(recipe.seed)
    model = Transformer(recipe, recomputes=options.recompute)
    init_weights(model, torch.Generator().manual_seed(recipe.seed))
    micro = options.micro or min(recipe.batch, max(1, 16384 // recipe.context))
    return Trainer(recipe, model.to(options.device), micro=micro)


def one_step(trainer: Trainer, batch_BT: torch.Tensor) -> Line:
    """See the next batch; raises NotFiniteError, with the weights as before, where no update came of it."""
    recipe, started = trainer.recipe, time.perf_counter()
    step, scale = trainer.step + 1, trainer.loss_scale.scale
    first_row = recipe.batch * (step - 1)
    updated = trainer.update(batch_BT)
    if updated.is_skipped and (recipe.precision != "float16" or scale == 1):
        what = f"loss {updated.loss}, norm of the gradient {updated.gradient_norm}"
        raise NotFiniteError(
            f"{what}: the training stops. It saw rows {first_row} to {first_row + recipe.batch - 1}",
            path=recipe.name,
            field=f"step {step}",
        )
    return Line(
        step=step,
        first_row=first_row,
        last_row=first_row + recipe.batch - 1,
        tokens=step * recipe.batch * recipe.context,
        loss=updated.loss,
        gradient_norm=updated.gradient_norm,
        rate=updated.rate,
        loss_scale=scale,
        skipped=int(updated.is_skipped),
        digest=digest(trainer.model),
        seconds=time.perf_counter() - started,
    )


def batches(trainer: Trainer, rows: TrainingRows, last: int) -> Iterator[torch.Tensor]:
    """The batches of the steps that come, up to the last one; each is read while the model is busy with another."""
    steps = range(trainer.step + 1, last + 1)
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(rows.of_step, step) for step in steps[:1]]
        for step in steps:
            batch = torch.from_numpy(coming.pop().result()).to(trainer.device)
            if step < last:
                coming.append(reader.submit(rows.of_step, step + 1))
            yield batch


def _go_on(trainer: Trainer, run: Path, rows: TrainingRows, data: str, options: TrainOptions, watcher: Watcher) -> Path:
    recipe, saved_at = trainer.recipe, time.monotonic()
    keep = partial(
        save_checkpoint, trainer=trainer, data=rows.identity, tokenizer=tokenizer_of(data), dtype=options.dtype
    )
    with RunLog(run, trainer.step) as log:
        if trainer.step == 0 and recipe.is_checkpoint(0):
            watcher.checkpoint(keep(run), trainer)
        watcher.begin(recipe.steps - trainer.step)
        for batch in batches(trainer, rows, recipe.steps):
            line = one_step(trainer, batch)
            log.add(line)
            if log.later.get(line.step, line.digest) != line.digest:
                watcher.tell(f"step {line.step} gave other weights than before: {log.later[line.step]}, {line.digest}")
                log.later.clear()
            watcher.step(line, recipe.steps - line.step)
            # The log is on the disk before a checkpoint that knows of its lines.
            if recipe.is_checkpoint(line.step):
                log.sync()
                watcher.checkpoint(keep(run), trainer)
                _tidy(run, options.keep_states)
                saved_at = time.monotonic()
            elif options.save_every_s and time.monotonic() - saved_at > options.save_every_s:
                log.sync()
                between(run).mkdir(exist_ok=True)
                keep(between(run))
                _tidy(run, options.keep_states)
                saved_at = time.monotonic()
    return run / f"step{recipe.steps}"


def _tidy(run: Path, n: int) -> None:
    """Take away states between checkpoints but the newest, and those of old checkpoints."""
    newest = states_in(run)[0]
    for folder in steps_in(between(run)).values():
        if folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
    if n:
        for folder in [folder for folder in states_in(run) if folder.parent == run][n:]:
            drop_state(folder)


@contextlib.contextmanager
def deterministic(options: TrainOptions) -> Iterator[None]:
    """A block in which torch computes the same bits each time on the same kind of machine."""
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.get_rng_state())
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
        torch.set_rng_state(before[2])


def _decisive(recipe: Recipe) -> dict[str, object]:
    """What decides the weights."""
    return {name: value for name, value in dataclasses.asdict(recipe).items() if name not in ("name", "source")}


def _difference(a: Recipe, b: Recipe) -> str:
    names = [name for name, value in _decisive(a).items() if value != _decisive(b)[name]]
    told = [f"{name} {getattr(a, name)}, now {getattr(b, name)}" for name in names]
    return one_line("; ".join(told))
