"""A job beside the main one, in a thread of its own: compiling encoders or hashing a source takes its time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

from pythia_gguf.progress import Progress

T = TypeVar("T")


class SideTask(Generic[T]):
    """Does a job while the block of `with` runs; leaving the block ends a job at its next word of progress."""

    def __init__(self, job: Callable[[Progress], T], *, threads: int) -> None:
        """Take the job, and the number of threads of the run: with one, the caller does the job where it waits."""
        self._job = job
        self._heard: SimpleQueue[Callable[[Progress], None] | None] = SimpleQueue()
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(1, "side") if threads > 1 else None
        self._task: Future[T] | None = None

    def __enter__(self) -> Self:
        if self._pool:
            self._task = self._pool.submit(self._run)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        if self._pool:
            self._pool.shutdown()

    def wait(self, progress: Progress) -> T:
        """Wait for the job's result, and pass on its progress; raises what the job raises.

        Another call returns the same result.
        """
        if self._task is None:
            self._task = Future()
            self._task.set_result(self._job(progress))
            self._heard.put(None)
        while (heard := self._heard.get()) is not None:
            heard(progress)
        self._heard.put(None)  # for another call
        return self._task.result()

    def raise_failure(self) -> None:
        """Raise what the job has raised already, if anything; does not wait."""
        if self._task is not None and self._task.done():
            self._task.result()

    def stage(self, name: str, total: int, unit: str) -> None:
        """Take a stage from the job; `wait` passes it on."""
        self._heard.put(lambda progress: progress.stage(name, total, unit))

    def advance(self, what: str, n: int) -> None:
        """Take an advance from the job; `wait` passes it on. Raises CancelledError once the block has ended."""
        if self._is_over.is_set():
            raise CancelledError
        self._heard.put(lambda progress: progress.advance(what, n))

    def _run(self) -> T:
        try:
            return self._job(self)
        finally:
            self._heard.put(None)
