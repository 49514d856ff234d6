"""What a long run shows on stderr: a bar on a terminal, a line now and then elsewhere.

Knows nothing of what is being done; it hears stages and units.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0
# A stage shorter than this leaves no line behind.
_SHORT_S = 0.5


class LineProgress:
    """One line when a stage begins or has gone on for a while, one when it ends: for logs and pipes."""

    def __init__(self) -> None:
        self._name = ""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Ends the stage before, begins another."""
        self._finish()
        self._name, self._total, self._unit, self._done = name, total, unit, 0
        self._started = self._said = time.monotonic()

    def advance(self, what: str, n: int) -> None:
        """Counts, and says a line when the last one is old."""
        self._done += n
        now = time.monotonic()
        if now - self._said >= _LINE_EVERY_S:
            self._said = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else 0.0
            self._say(
                f"{self._name}: {self._done / max(1, self._total):.0%}, {what},"
                f" {quantity(rate, self._unit)}/s, about {left:.0f} s left"
            )

    def _finish(self) -> None:
        if self._name and (took := time.monotonic() - self._started) >= _SHORT_S:
            self._say(f"{self._name}: {quantity(self._done, self._unit)} in {took:.1f} s")
        self._name = ""

    def _say(self, text: str) -> None:
        click.echo(text, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()


class BarProgress:
    """A bar per stage with what is being worked on, throughput and time left: for terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar: Bar = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:>16}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, unit: str) -> None:
        """A new bar below those that are done."""
        self._unit, self._done, self._started = unit, 0, time.monotonic()
        self._task = self._bar.add_task(name, total=max(1, total), what="", rate="")

    def advance(self, what: str, n: int) -> None:
        """Moves the bar."""
        assert self._task is not None
        self._done += n
        rate = self._done / max(1e-9, time.monotonic() - self._started)
        self._bar.update(self._task, advance=n, what=what, rate=f"{quantity(rate, self._unit)}/s")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def make_progress() -> LineProgress | BarProgress:
    """What fits the place that stderr goes to."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def quantity(n: float, unit: str) -> str:
    """A number with a prefix and its unit: 405334016 weights -> "405 M weights"."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.3g} {prefix} {unit}" if n < 999.5 * factor else f"{n / factor:.0f} {prefix} {unit}"
    return f"{n:.3g} {unit}"
