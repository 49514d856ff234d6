"""How many threads a job gets when a user names a number, or none.

Knows no job.
"""

from __future__ import annotations

import os

from pythia_gguf.errors import Argument, UsageError


def threads_of(threads: int | None) -> int:
    """The number that was named, or one per CPU that this process may use; raises UsageError below 1."""
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if threads < 1:
        raise UsageError(Argument("threads"), f" must be at least 1, got {threads}")
    return threads
