"""Compiles kernels before they are needed; where much is missing, in two processes.

Knows no kernel: whoever has one says by a job how it is made.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """`module.function(*arguments)`, of an imported module, compiles a kernel, or loads it from the cache.

    name     for people
    is_kept  whether it was there already when the job was made
    """

    name: str
    module: str
    function: str
    arguments: tuple[str | bool, ...]
    is_kept: bool

    def run(self) -> None:
        """Do it."""
        getattr(sys.modules[self.module], self.function)(*self.arguments)


def compile_all(jobs: Sequence[Job], advance: Callable[[str, int], None] = lambda name, n: None) -> None:
    """Do all jobs; where more than one kernel is missing, in two processes.

    jobs     the longest ones best at both ends: where the two processes meet, both may compile the same kernel
    advance  hears of each kernel that is ready; what it raises ends the work

    Numba compiles in one thread at a time. So a second process begins at the other end of the list, and each finds
    in the cache what the other has made. Without that process, or without a cache, this one does everything.
    """
    missing = [job for job in jobs if not job.is_kept]
    with _second_process(missing[:0:-1]):
        for job in (*missing, *(job for job in jobs if job.is_kept)):
            job.run()
            advance(job.name, 1)


@contextlib.contextmanager
def _second_process(jobs: Sequence[Job]) -> Iterator[None]:
    """While the block runs, a process does `jobs`, where there are some and a CPU for it."""
    process = None
    if jobs and sys.executable and not hasattr(sys, "frozen") and os.cpu_count() != 1:
        modules = ", ".join({__name__, *(job.module for job in jobs)})
        code = f"import {modules}\nfor job in {[tuple(job) for job in jobs]}: {__name__}.Job(*job).run()"
        # Where no process can be started, the caller compiles alone.
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],  # -P: nothing is imported from the working directory
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()
