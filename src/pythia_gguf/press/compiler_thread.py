"""Compiles encoders in a thread of their own while the caller does something else.

On a new machine that takes as long as the hash of a source of many gigabytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Self

from pythia_gguf.cpus import workers_of
from pythia_gguf.formats import FORMATS
from pythia_gguf.progress import Progress


class CompilerThread:
    """Compiles while the block of `with` runs; leaving it early stops after the kernel that is being compiled."""

    def __init__(self, formats: Iterable[str], *, is_weighted: bool, threads: int) -> None:
        """Take the formats that the run writes; those without blocks need no encoder.

        is_weighted  whether the encoders take an importance matrix
        threads      of the run; with one, the caller compiles everything as the block begins
        """
        self._is_weighted, self._threads = is_weighted, threads
        wanted = set(formats)
        self._names = [name for name, block in FORMATS.items() if name in wanted and block.block_weights > 1]
        self._heard: SimpleQueue[Callable[[Progress], None] | None] = SimpleQueue()
        self._is_over = threading.Event()
        self._pool = workers_of(min(threads, 2), "compile")

    def __enter__(self) -> Self:
        self._task = self._pool.submit(self._compile)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._pool.shutdown()

    def wait(self, progress: Progress) -> None:
        """Wait until all encoders are ready, and pass on the progress of the thread; raises what the thread raised."""
        while (heard := self._heard.get()) is not None:
            heard(progress)
        self._task.result()

    def stage(self, name: str, total: int, unit: str) -> None:
        """Take a stage from the thread; `wait` passes it on."""
        self._heard.put(lambda progress: progress.stage(name, total, unit))

    def advance(self, what: str, n: int) -> None:
        """Take an advance from the thread; `wait` passes it on. Raises CancelledError once the block has ended."""
        if self._is_over.is_set():
            raise CancelledError
        self._heard.put(lambda progress: progress.advance(what, n))

    def _compile(self) -> None:
        try:
            if not self._names:
                return
            # The import stands here because even importing the compiler takes its time.
            from pythia_gguf.kernels.compiling import compile_all
            from pythia_gguf.kernels.encode import encoder_jobs

            compile_all(encoder_jobs(self._names, is_weighted=self._is_weighted), self, self._threads)
        finally:
            self._heard.put(None)
