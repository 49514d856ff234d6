"""The log of a run for eyes: TensorBoard's files, and a picture of the loss.

tensorboard and matplotlib come with the extra `train` and are imported here only.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

from pythia_gguf.errors import UsageError
from pythia_gguf.files import write_all, write_beside
from pythia_gguf.train.run_log import Line, read_log

SCALARS = ("loss", "gradient_norm", "rate", "loss_scale", "seconds")


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class Board:
    """Writes each line of a log for TensorBoard, to RUN/tensorboard."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "tensorboard"
        self._writer: Any = None

    def add(self, line: Line) -> None:
        """Write a line; steps that an earlier, longer run wrote are hidden."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=line.step)
        for name in SCALARS:
            self._writer.add_scalar(name, getattr(line, name), line.step)

    def add_values(self, values: dict[str, float], step: int) -> None:
        """Other numbers of a step, by name."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def plot_loss(run: Path, out: Path) -> None:
    """Draw loss and learning rate over steps; raises UsageError without matplotlib, StorageError, ModelFileError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise UsageError(f'plots need matplotlib: pip install "pythia-gguf[train]" ({e})') from e
    lines = list(read_log(run).values())
    if not lines:
        raise UsageError(f"{run}: no step was done yet")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    steps = [line.step for line in lines]
    axes.plot(steps, [line.loss for line in lines], color="C0", linewidth=0.6, alpha=0.5, label="loss of a batch")
    axes.plot(steps, smoothed([line.loss for line in lines]), color="C0", linewidth=1.5, label="smoothed")
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.set_title(run.resolve().name, parse_math=False)
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot(steps, [line.rate for line in lines], color="C1", linewidth=1, label="learning rate")
    rates.set(ylabel="learning rate", ylim=(0, None))
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    with write_beside(out) as file:
        write_all(file, picture.getbuffer())


def smoothed(values: list[float], share: float = 0.02) -> list[float]:
    """A running mean whose weight falls over `share` of all values, corrected at the beginning."""
    keep = 1 - 1 / max(1.0, share * len(values))
    total, weight, found = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight)
    return found
