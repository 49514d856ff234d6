"""What is seen of a training: a live line, notes, TensorBoard's files, and what each checkpoint is like."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.errors import PythiaGGUFError, UsageError
from pythia_gguf.progress import Progress

if TYPE_CHECKING:
    from pythia_gguf.train.boards import Board
    from pythia_gguf.train.recipe import Recipe
    from pythia_gguf.train.run_log import Line
    from pythia_gguf.train.update import Trainer


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
            self._look(folder, trainer.state.step)
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
