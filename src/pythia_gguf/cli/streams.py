"""Standard streams that any command can use, however the program was started.

A service starts programs with streams closed, a log can be on a full disk, a terminal can hang up, and an encoding can
lack what a name has.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys


class _BestEffort(io.FileIO):
    """Messages go where they can; only a reader that has gone ends the program, as it does everywhere."""

    def write(self, data: object) -> int:
        """Write all of it as far as anybody can know."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        try:
            while len(view):
                view = view[super().write(view) :]
        except BrokenPipeError:
            raise
        except OSError:
            pass
        return memoryview(data).nbytes  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Give this process a stdin, stdout and stderr that exist, and never fail for a character that they lack."""
    _occupy_numbers()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
        raw = io.BufferedWriter(_BestEffort(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_results() -> None:
    """Raises OSError when stdout does not take what was printed; nothing is left that could fail at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        # What is still in its buffer goes nowhere.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _occupy_numbers() -> None:
    """Open 0, 1 and 2 where they are closed: the next file that is opened would get the number, and be written into."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # the lowest that is free: this one
