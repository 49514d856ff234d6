"""What a long job reports while it runs."""

from __future__ import annotations

from typing import Protocol

# The stage in which missing kernels are compiled; only the first run on a machine has it.
COMPILING = "compiling"


class Progress(Protocol):
    """Hears what a job is doing."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """A new stage begins: its name, how much there is to do, and of what."""

    def advance(self, what: str, n: int) -> None:
        """`n` more units are done; `what` was worked on."""


class Silence:
    """Progress that nobody hears."""

    def stage(self, name: str, total: int, unit: str) -> None:
        """Says nothing."""

    def advance(self, what: str, n: int) -> None:
        """Says nothing."""
