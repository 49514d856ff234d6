"""What seeing a text did: its log-likelihood at the checkpoints before and after each row of training that shows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pythia_gguf.engine.model import Model
from pythia_gguf.engine.scoring import Score
from pythia_gguf.evals.plots import save_picture
from pythia_gguf.models.checkpoints import Checkpoint, around, find_checkpoints
from pythia_gguf.progress import Progress, Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one sight did.

    row      of training that shows the text
    before   last checkpoint that had not seen the row; None: there is none
    after    first checkpoint that had
    """

    row: int
    before: Checkpoint | None
    after: Checkpoint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What all sights did.

    sights  in the order of training
    scores  of the text, by checkpoint, in the order of training
    """

    sights: tuple[Effect, ...]
    scores: dict[Checkpoint, Score]

    def change(self, sight: Effect) -> float | None:
        """Log-likelihood after a sight less that before, in nats; None where a checkpoint is missing."""
        if sight.before is None or sight.after is None:
            return None
        return self.scores[sight.after].logprob - self.scores[sight.before].logprob


def measure_effects(
    rows: Sequence[int],
    text: str,
    *,
    model: str | os.PathLike[str],
    load: Callable[[str], Model],
    batch: int = 1024,
    prompt: str = "",
    encoding: str = "joint",
    progress: Progress | None = None,
) -> Effects:
    """Score a text at the checkpoints around each row, each checkpoint once.

    rows    of training that show the text
    model   a run, as `models.checkpoints.find_checkpoints` takes it
    load    loads a checkpoint by its name
    batch   rows of a step, where the model does not know its own
    prompt  what stands before the text; "" for the token that begins or ends texts
    Raises  as `find_checkpoints`, `load` and `Model.score`
    """
    checkpoints = find_checkpoints(model, batch)
    sights = []
    for row in sorted(set(rows)):
        before, after = around(checkpoints, row)
        sights.append(Effect(row=row, before=before, after=after))
    needed = {c for sight in sights for c in (sight.before, sight.after) if c is not None}
    heard = progress or Silence()
    scores = {}
    for checkpoint in [c for c in checkpoints if c in needed]:
        loaded = load(checkpoint.name)
        scores[checkpoint] = loaded.score([(prompt, text)], encoding=encoding, progress=heard)[0]
    return Effects(sights=tuple(sights), scores=scores)


def plot_effects(effects: Effects, title: str, path: Path) -> Path:
    """Draw log-likelihoods over rows of training, and sights; raises UsageError without matplotlib, StorageError."""
    return save_picture(path, partial(_draw, effects=effects, title=title))


def _draw(axes: Any, effects: Effects, title: str) -> None:
    rows = [checkpoint.n_rows for checkpoint in effects.scores]
    for i, sight in enumerate(effects.sights):
        axes.axvline(sight.row, color="C1", linewidth=0.8, label="" if i else "seen")
    axes.plot(rows, [s.logprob for s in effects.scores.values()], "o-", color="C0", markersize=4, label="checkpoints")
    for checkpoint, score in effects.scores.items():
        axes.annotate(
            checkpoint.branch, (checkpoint.n_rows, score.logprob), (0, 6), textcoords="offset points", ha="center",
            fontsize=7, parse_math=False,
        )  # fmt: skip
    axes.set(xlabel="rows of training seen", ylabel="log-likelihood, nats")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.margins(y=0.15)  # for the names
