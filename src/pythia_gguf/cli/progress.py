"""What a long run shows on stderr: a bar on a terminal, a line now and then elsewhere.

A job reports its stages and units; nothing here depends on what the job does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from pythia_gguf.progress import COMPILING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0
# A stage shorter than this leaves no line behind; a longer one says what it does.
_SHORT_S = 2.0
# A rate is measured over the last so many seconds, and is shown after the first few of them.
_WINDOW_S, _EVIDENCE_S = 30.0, 2.0


class Pace:
    """How fast a stage goes now, judged by recent work, never by what came before the first piece, such as compiling.

    done, total  units
    """

    def __init__(self, total: int, clock: Callable[[], float]) -> None:
        self.total, self.done = total, 0
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, n: int) -> None:
        """`n` more units are done."""
        now = self._clock()
        self.done += n
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and now - self._marks[1][0] > _WINDOW_S:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Units a second; None as long as nobody can know."""
        if not self._marks:
            return None
        (since, before), (last, done) = self._marks[0], self._marks[-1]
        return (done - before) / (last - since) if last - since >= _EVIDENCE_S else None

    @property
    def said(self) -> str:
        """A text that says how much is done, and how long the rest takes where that can be known."""
        text = f"{self.done / max(1, self.total):.0%}"
        return f"{text}, about {(self.total - self.done) / self.rate:.0f} s left" if self.rate else text


class LineProgress:
    """One line when a stage begins or has gone on for a while, one when it ends: for logs and pipes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._name = ""
        self._timer: threading.Timer | None = None

    def stage(self, name: str, total: int, unit: str) -> None:
        """End the stage before and begin another."""
        self._finish()
        self._name, self._unit, self._pace = name, unit, Pace(total, self._clock)
        self._started = self._said = self._clock()
        if name == COMPILING:
            click.echo(f"{compiling_text(total)} ... ", err=True, nl=False)
        else:
            self._timer = threading.Timer(_SHORT_S, self._say, [f"{name} ..."])
            self._timer.daemon, self._timer.name = True, "progress"
            self._timer.start()

    def advance(self, what: str, n: int) -> None:
        """Count, and write a line when the last one is old."""
        self._pace.add(n)
        now = self._clock()
        if now - self._said >= _LINE_EVERY_S and self._name != COMPILING:
            self._said = now
            rate = self._pace.rate
            how_fast = f", {quantity(rate, self._unit)}/s" if rate else ""
            self._say(f"{self._name}: {self._pace.said}{how_fast}{', ' if what else ''}{what}")

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        took = self._clock() - self._started if self._name else 0.0
        if self._name == COMPILING:
            click.echo(f"{took:.1f} s", err=True)
        elif took >= _SHORT_S:
            self._say(f"{self._name}: {quantity(self._pace.done, self._unit)} in {took:.1f} s")
        self._name = ""

    def _say(self, text: str) -> None:
        click.echo(text, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self._name == COMPILING:
                click.echo(err=True)
            self._started = self._clock()  # a stage that was broken off has not ended
            self._name = ""
        self._finish()


class BarProgress:
    """A bar per stage with what is being worked on, throughput and time left: for terminals."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = clock
        self._bar: Bar = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TextColumn("{task.fields[what]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def stage(self, name: str, total: int, unit: str) -> None:
        """Show a new bar below those that are done."""
        self._finish()
        self._unit, self._pace, self._started = unit, Pace(total, self._clock), self._clock()
        text = compiling_text(total) if name == COMPILING else name
        self._task = self._bar.add_task(text, total=max(1, total), what="", said="")

    def advance(self, what: str, n: int) -> None:
        """Move the bar."""
        assert self._task is not None
        self._pace.add(n)
        rate = self._pace.rate
        said = self._pace.said + (f", {quantity(rate, self._unit)}/s" if rate else "")
        self._bar.update(self._task, advance=n, what=what, said=said)

    def _finish(self) -> None:
        if self._task is not None and self._pace.done >= self._pace.total:
            self._bar.update(self._task, what="", said=f"{self._clock() - self._started:.1f} s")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bar.stop()


def compiling_text(n: int) -> str:
    """What to say while missing kernels are compiled."""
    return f"compiling {n} kernel{'' if n == 1 else 's'}, first run only"


def make_progress() -> LineProgress | BarProgress:
    """The kind of progress that fits the place where stderr goes."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def quantity(n: float, unit: str) -> str:
    """A number with a prefix and its unit: 405334016 weights -> "405 M weights"."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            return f"{n / factor:.3g} {prefix} {unit}" if n < 999.5 * factor else f"{n / factor:.0f} {prefix} {unit}"
    return f"{n:.3g} {unit}"
