"""RUN/log.csv: one line for each step of a training, as people and spreadsheets read it.

A training that goes on from an earlier step writes the lines behind it anew; it knows which digests they had.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import storage_error, write_all, write_text
from pythia_gguf.json_file import read_text

_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is told of a step.

    first_row, last_row  that it saw, both included, counted from the beginning of training
    tokens               that all steps up to it predicted
    loss                 mean over its batch, in nats
    gradient_norm        before clipping; inf where a gradient overflowed
    rate                 learning rate
    loss_scale           what the loss was multiplied with
    skipped              1 where the weights stayed as they were, since a gradient overflowed
    digest               of the weights after the step
    seconds              that it took
    """

    step: int
    first_row: int
    last_row: int
    tokens: int
    loss: float
    gradient_norm: float
    rate: float
    loss_scale: float
    skipped: int
    digest: str
    seconds: float


COLUMNS = tuple(field.name for field in fields(Line))


def log_path(run: Path) -> Path:
    """Where a run has its log."""
    return run / "log.csv"


def read_log(run: Path) -> dict[int, Line]:
    """The lines by step; a line that was cut short by the end of a process ends them.

    Raises StorageError, and ModelFileError for a file that is no such log
    """
    path = log_path(run)
    text = read_text(path, _MOST_BYTES)
    whole = text[: text.rfind("\n") + 1]
    rows = csv.reader(io.StringIO(whole))
    if tuple(next(rows, ())) != COLUMNS:
        raise ModelFileError(f"expected the columns {', '.join(COLUMNS)}", path=path)
    lines = {}
    for number, row in enumerate(rows, 2):
        try:
            values = [_TYPES[name](value) for name, value in zip(COLUMNS, row, strict=True)]
            line = Line(**dict(zip(COLUMNS, values, strict=True)))
        except ValueError:
            raise ModelFileError("is not a line of a training's log", path=path, field=f"line {number}") from None
        lines[line.step] = line
    return lines


class RunLog:
    """The log of a run, open for more lines."""

    def __init__(self, run: Path, step: int) -> None:
        """Go on after a step; later lines are cut off.

        Raises StorageError, ModelFileError
        """
        self._path = log_path(run)
        old = read_log(run) if self._path.exists() else {}
        self.later = {n: line.digest for n, line in old.items() if n > step}
        kept = [line for n, line in old.items() if n <= step]
        write_text(self._path, "".join(map(_as_text, [COLUMNS, *map(astuple, kept)])))
        try:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by `close`
        except OSError as e:
            raise storage_error(self._path, e) from e

    def add(self, line: Line) -> None:
        """Write a line; it is with the system when this returns."""
        try:
            write_all(self._file, _as_text(astuple(line)).encode())
        except OSError as e:
            raise storage_error(self._path, e) from e

    def sync(self) -> None:
        """Have all lines on the disk: before a checkpoint is."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more lines; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_TYPES = {field.name: {"int": int, "float": float, "str": str}[str(field.type)] for field in fields(Line)}


def _as_text(values: tuple[object, ...]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([repr(v) if isinstance(v, float) else v for v in values])
    return out.getvalue()
