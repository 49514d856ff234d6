"""Signals that ask a command to end: each ends it as Ctrl-C does, tidied up.

Only the entry point uses it: a library leaves the signals of a program alone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

# Windows has no SIGHUP.
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# timeout(1), systemd and a terminal that closes send more than one signal for one reason.
_SAME_REASON_S = 1.0


class EndingSignals:
    """While the block runs, the first signal raises KeyboardInterrupt, one that comes later ends the process at once.

    A signal that was ignored before, as SIGHUP is under nohup, stays ignored.

    number  of the first signal that came, or None
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._came = 0.0

    @property
    def exit_code(self) -> int:
        """What a shell says of a program that such a signal ended; Ctrl-C when none was seen."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def said(self) -> str:
        """What happened; on a terminal below the ^C that it shows."""
        if self.number not in (None, signal.SIGINT):
            return f"Ended by {signal.Signals(self.number).name}"
        return "\nInterrupted" if sys.stderr.isatty() else "Interrupted"

    def __enter__(self) -> Self:
        for number in _ENDING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is None:
            self.number, self._came = number, now
            raise KeyboardInterrupt
        if now - self._came > _SAME_REASON_S:
            os._exit(128 + number)
