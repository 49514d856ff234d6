"""Work on pieces of files by several processes, its results in the order of the pieces.

A worker is an object that can be pickled; each process has its own copy and is told which method to call.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any, TypeVar

from pythia_gguf.arguments import whole_number
from pythia_gguf.machine import usable_cpus, variable_set

# Pieces that wait for each process.
_AHEAD = 3
# One thread in each of several processes, for libraries that would take all CPUs.
_ALONE = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
Item = TypeVar("Item")


def process_count(processes: int | None) -> int:
    """How many processes an argument means; one for each CPU where it is None."""
    return usable_cpus().n if processes is None else int(whole_number(1)("processes", processes))


class Workers:
    """Workers in this process or in others, for use in a `with`."""

    def __init__(self, n: int, worker: object) -> None:
        """Take how many processes there are, 1 being this one alone, and what works in them."""
        self._n, self._worker = n, worker
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        with ExitStack() as stack:
            if self._n > 1:
                # Not forked: libraries may have threads already.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self._n, context, _begin, (self._worker,))
                stack.callback(self._pool.shutdown, cancel_futures=True)
            else:
                # The library of tokenizers asks the environment each time it is called.
                stack.enter_context(variable_set("TOKENIZERS_PARALLELISM", "false"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def each(self, method: str, items: Iterable[tuple[Item, tuple[Any, ...]]]) -> Iterator[tuple[Item, Any]]:
        """What `method` gives for the arguments of each item, in their order.

        Raises  MemoryError where a process was ended from outside, and what the method raises
        """
        waiting: deque[tuple[Item, Future[Any]]] = deque()
        for item, arguments in items:
            if self._pool is None:
                yield item, getattr(self._worker, method)(*arguments)
                continue
            with _deaf():
                waiting.append((item, self._pool.submit(_work, method, arguments)))
            if len(waiting) > self._n * _AHEAD:
                yield _next_of(waiting)
        while waiting:
            yield _next_of(waiting)


def _next_of(waiting: deque[tuple[Item, Future[Any]]]) -> tuple[Item, Any]:
    item, future = waiting.popleft()
    try:
        return item, future.result()
    except BrokenProcessPool:
        raise MemoryError("a process that worked for us was ended from outside. Use fewer processes") from None


# The worker of a process that works for another one.
_OWN: list[object] = []


def _begin(worker: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Where signals cannot be blocked: Ctrl-C ends the process that waits for us, and that one ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ |= _ALONE
    _OWN.append(worker)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_OWN[0], method)(*arguments)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started in the block never hear what a terminal sends to all of them: we end them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
