"""How many threads a job gets when a user names a number, or none, and what runs on them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from pythia_gguf.arguments import whole_number
from pythia_gguf.machine import usable_cpus


def threads_of(threads: int | None) -> int:
    """The number given, or one per CPU that this process may use; raises UsageError below 1."""
    if threads is None:
        return usable_cpus().n
    return int(whole_number(1)("threads", threads))


def workers_of(n_threads: int, name: str = "") -> Executor:
    """Threads for a job, to be used in a `with`; with one, the caller's own thread does each task at once.

    name  the beginning of the threads' names
    """
    return _Caller() if n_threads == 1 else ThreadPoolExecutor(n_threads, thread_name_prefix=name)


class _Caller(Executor):
    """An executor that does each task in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do the task; its exception is raised here, not by the future's `result`."""
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done
