"""What is seen of a training while it runs: a live line, and notes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.progress import Progress

if TYPE_CHECKING:
    from pythia_gguf.train.recipe import Recipe
    from pythia_gguf.train.run_log import Line
    from pythia_gguf.train.update import Trainer


class LiveLine:
    """Shows loss and learning rate on the progress line, which knows tokens a second and the time that is left."""

    def __init__(self, progress: Progress, recipe: Recipe) -> None:
        self._progress, self._tokens = progress, recipe.batch * recipe.context
        self._is_begun = False

    def step(self, line: Line, n_left: int) -> None:
        """A step is done."""
        if not self._is_begun:
            self._progress.stage("training", (n_left + 1) * self._tokens, "tokens")
            self._is_begun = True
        self._progress.advance(f"step {line.step}, loss {line.loss:.4f}, rate {line.rate:.3g}", self._tokens)
        if line.skipped:
            self.tell(
                f"step {line.step}: a gradient overflowed at loss scale {line.loss_scale:g}; it changed no weight"
            )

    def checkpoint(self, folder: Path, trainer: Trainer) -> None:
        """A checkpoint is in its place."""
        self.tell(f"{folder}")

    def tell(self, line: str) -> None:
        """Something happened."""
        click.echo(line, err=True)
