"""Compiles kernels before they are needed; where much is missing, in two processes.

Knows no kernel: whoever has one says by a job how it is made.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from pythia_gguf.cpus import threads_of


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


def compile_all(
    jobs: Sequence[Job],
    advance: Callable[[str, int], None] = lambda name, n: None,
    threads: int | None = None,
) -> None:
    """Do all jobs; where more than one kernel is missing, in two processes.

    jobs     the longest ones best at both ends: where the two processes meet, one may have to wait for the other
    advance  hears of each kernel that is ready; what it raises ends the work
    threads  of the caller, default one per CPU; with one there is no second process

    Numba compiles in one thread at a time. So a second process begins at the other end of the list, and each finds
    in the cache what the other has made. Without that process, or without a cache, this one does everything.
    """
    missing = [job for job in jobs if not job.is_kept]
    with _second_process(missing if threads_of(threads) > 1 else []) as second:
        for i, job in enumerate((*missing, *(job for job in jobs if job.is_kept))):
            second.wait_while_at(i)
            job.run()
            advance(job.name, 1)


class _Second:
    """What is known of the second process: the number of the job that it is doing; -1 for none."""

    def __init__(self) -> None:
        self._at = -1
        self._changed = threading.Condition()

    def listen(self, lines: IO[str]) -> None:
        """Hear of each job before it begins, until that process ends."""
        with lines:
            for line in lines:
                self._note(int(line))
        self._note(-1)

    def wait_while_at(self, i: int) -> None:
        """Until job i is made, or after a minute, by when something is wrong with that process."""
        with self._changed:
            self._changed.wait_for(lambda: self._at != i, timeout=60)

    def _note(self, i: int) -> None:
        with self._changed:
            self._at = i
            self._changed.notify_all()


@contextlib.contextmanager
def _second_process(jobs: Sequence[Job]) -> Iterator[_Second]:
    """While the block runs, a process does all but the first of `jobs`, from the end."""
    process, second = None, _Second()
    if len(jobs) > 1 and sys.executable and not hasattr(sys, "frozen"):
        modules = ", ".join({__name__, *(job.module for job in jobs)})
        code = (
            f"import {modules}\nfor i, job in {[(i, tuple(job)) for i, job in enumerate(jobs)][:0:-1]}:\n"
            f"    print(i, flush=True)\n    {__name__}.Job(*job).run()"
        )
        # Where no process can be started, the caller compiles alone.
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],  # -P: nothing is imported from the working directory
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            threading.Thread(target=second.listen, args=(process.stdout,), daemon=True).start()
    try:
        yield second
    finally:
        if process is not None:
            process.terminate()
            process.wait()
