"""What is seen of a training: a live line, notes, TensorBoard's files, and what each checkpoint is like."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import refuse_given
from pythia_gguf.errors import Argument, PythiaGGUFError, UsageError
from pythia_gguf.progress import Progress

if TYPE_CHECKING:
    from pythia_gguf.train.boards import Board
    from pythia_gguf.train.recipe import Recipe
    from pythia_gguf.train.run_log import Line
    from pythia_gguf.train.update import Trainer

# A decorator of click.
Option = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What is looked at beside the numbers of each step.

    board   TensorBoard's files; None: none
    prompt  of the sentence that each checkpoint writes; None: it writes none
    quants  whose cost is measured at each checkpoint
    text    on which it is measured
    """

    board: Board | None = None
    prompt: str | None = None
    quants: tuple[str, ...] = ()
    text: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EyeOptions:
    """What a user wants to look at; see the options."""

    prompt: str
    no_sample: bool
    watch_quants: str | None
    watch_text: Path | None
    no_tensorboard: bool

    def open(self, run: Path) -> Eyes:
        """The same, checked; raises UsageError, StorageError."""
        from pythia_gguf.train.boards import Board, has_tensorboard

        if self.no_sample:
            refuse_given("prompt", "where checkpoints write no sentence")
        return Eyes(
            board=Board(run) if has_tensorboard() and not self.no_tensorboard else None,
            prompt=None if self.no_sample else self.prompt,
            quants=self._quants(),
            text=self.watch_text,
        )

    def _quants(self) -> tuple[str, ...]:
        from pythia_gguf.files import RegularFile
        from pythia_gguf.train.watching import watched_quants

        if self.watch_quants is None:
            refuse_given("watch_text", "without --watch-quants")
            return ()
        if self.watch_text is None:
            raise UsageError(Argument("watch_quants"), " are measured on a text. Name one: ", Argument("watch_text"))
        with RegularFile(self.watch_text):
            return tuple(watched_quants(self.watch_quants))


_DEVICE_OPTIONS = (
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
    click.option("--micro-batch", "micro", type=int, help="Rows at once.  [default: 16,384 tokens]"),
    click.option("--threads", type=int, help="Threads of torch; another number may change last bits."),
)
_RUN_OPTIONS = (
    click.option(
        "--dtype",
        type=click.Choice(["float16", "bfloat16", "float32"]),
        default="float16",
        show_default=True,
        help="Weights in checkpoints.",
    ),
    click.option("--keep-states", type=int, default=2, show_default=True, help="Checkpoints to go on from; 0: all."),
    click.option(
        "--save-every",
        "save_every_s",
        type=float,
        default=600.0,
        show_default=True,
        help="Seconds after which the state is saved between checkpoints; 0: never.",
    ),
    click.option("--recompute", is_flag=True, help="Compute activations again for gradients: less memory, more time."),
)
_EYE_OPTIONS = (
    click.option(
        "--sample", "prompt", default="", metavar="PROMPT", help="Each checkpoint writes a sentence that begins so."
    ),
    click.option("--no-sample", is_flag=True, help="Checkpoints write no sentence."),
    click.option(
        "--watch-quants", metavar="QUANTS", help="Measure at each checkpoint what these quants cost: Q4_K_M,Q2_K."
    ),
    click.option(
        "--watch-text",
        type=click.Path(path_type=Path),
        help="A text that the training does not see, for --watch-quants.",
    ),
    click.option("--no-tensorboard", is_flag=True, help="Write no files for TensorBoard."),
)


def device_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: --device, --micro-batch and --threads as `options`."""
    return _as_train_options(command, _DEVICE_OPTIONS)


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the same with those of a run as `options`, and what is looked at as `eyes`."""

    @functools.wraps(command)
    def given(
        *,
        prompt: str,
        no_sample: bool,
        watch_quants: str | None,
        watch_text: Path | None,
        no_tensorboard: bool,
        **others: Any,
    ) -> None:
        eyes = EyeOptions(
            prompt=prompt,
            no_sample=no_sample,
            watch_quants=watch_quants,
            watch_text=watch_text,
            no_tensorboard=no_tensorboard,
        )
        command(eyes=eyes, **others)

    return _with(_as_train_options(given, (*_DEVICE_OPTIONS, *_RUN_OPTIONS)), _EYE_OPTIONS)


def _as_train_options(command: Callable[..., None], options: tuple[Option, ...]) -> Callable[..., None]:
    @functools.wraps(command)
    def given(**values: Any) -> None:
        from pythia_gguf.train.options import TrainOptions

        own = {field.name for field in dataclasses.fields(TrainOptions)}
        command(
            options=TrainOptions(**{name: value for name, value in values.items() if name in own}),
            **{name: value for name, value in values.items() if name not in own},
        )

    return _with(given, options)


def _with(command: Callable[..., None], options: tuple[Option, ...]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def require_torch() -> None:
    """Raises UsageError where torch is not installed, before anything imports it."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("training needs torch. Run: pip install 'pythia-gguf[train]'")


class LiveLine:
    """Shows loss and learning rate on the progress line, which knows tokens a second and the time that is left."""

    def __init__(self, progress: Progress, recipe: Recipe, eyes: Eyes) -> None:
        self._progress, self._recipe, self._eyes = progress, recipe, eyes
        self._tokens = recipe.batch * recipe.context

    def begin(self, n_left: int) -> None:
        """Steps begin."""
        self._progress.stage("training", n_left * self._tokens, "tokens")

    def step(self, line: Line, n_left: int) -> None:
        """A step is done."""
        self._progress.advance(f"step {line.step}, loss {line.loss:.4f}, rate {line.rate:.3g}", self._tokens)
        if line.skipped:
            self.tell(f"step {line.step}: a gradient overflowed at loss scale {line.loss_scale:g}; no weight changed")
        if self._eyes.board is not None:
            self._eyes.board.add(line)

    def checkpoint(self, folder: Path, trainer: Trainer) -> None:
        """A checkpoint is in its place; what cannot be seen of it ends no training."""
        self.tell(str(folder))
        try:
            self._look(folder, trainer.step)
        except PythiaGGUFError as e:
            self.tell(f"{folder.name}: {e}")

    def tell(self, line: str) -> None:
        """Something happened."""
        click.echo(line, err=True)

    def _look(self, folder: Path, step: int) -> None:
        from pythia_gguf.train.watching import keep_costs, quant_costs, sample_sentence

        if self._eyes.prompt is not None and (folder / "tokenizer.json").is_file():
            self.tell(f"    {self._eyes.prompt}{sample_sentence(folder, self._eyes.prompt)!r}")
        if not self._eyes.quants or self._eyes.text is None:
            return
        context = min(512, self._recipe.context)
        costs = quant_costs(folder, step, self._eyes.quants, self._eyes.text, context=context)
        keep_costs(folder.parent, costs)
        self.tell("    KL divergence, nats: " + ", ".join(f"{c.quant} {c.kl_mean:.5f}" for c in costs))
        if self._eyes.board is not None:
            self._eyes.board.add_values({f"KL/{c.quant}": c.kl_mean for c in costs}, step)
