"""Threads that live as long as a model and do stretches of an op list together.

Knows no op. The caller's thread works too, as number 0, so that one thread means no other thread at all.
"""

from __future__ import annotations

import threading
import weakref
from typing import NamedTuple

import numpy as np

from pythia_gguf.kernels.driver import N_THREADS, SCRATCH, SCRATCH_BYTES, STATE, STEP_WORDS, run_ops
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.threads import STATE_WORDS


class Task(NamedTuple):
    """A stretch of an op list."""

    ops: np.ndarray
    first: int
    last: int
    step: np.ndarray


class Workers:
    """A fixed number of threads with scratch memory of their own.

    n_threads  of them, the caller's included
    """

    def __init__(self, n_threads: int, scratch_bytes: int) -> None:
        """Start them; they end with the last reference to this object."""
        self.n_threads = n_threads
        self._scratch = aligned((n_threads, scratch_bytes), np.uint8)
        self._state = aligned((STATE_WORDS,), np.int64)
        self._posts = [_Post() for _ in range(n_threads - 1)]
        self._one_caller = threading.Lock()
        for i, post in enumerate(self._posts):
            threading.Thread(target=_work, args=(post, i + 1), daemon=True, name=f"pythia-{i + 1}").start()
        weakref.finalize(self, _dismiss, self._posts)

    def new_step(self) -> np.ndarray:
        """A step that names these threads; the caller fills in the rest."""
        step = aligned((STEP_WORDS,), np.int64)
        step[STATE] = self._state.ctypes.data
        step[SCRATCH] = self._scratch.ctypes.data
        step[SCRATCH_BYTES] = self._scratch.shape[1]
        step[N_THREADS] = self.n_threads
        return step

    def run(self, ops: np.ndarray, first: int, last: int, step: np.ndarray) -> None:
        """Do ops first .. last - 1; they are done when this returns."""
        task = Task(ops, first, last, step)
        with self._one_caller:
            for post in self._posts:
                post.give(task)
            run_ops(ops, first, last, step, 0)


class _Post:
    """Where one thread finds its next task."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._full, self._empty = threading.Semaphore(0), threading.Semaphore(1)

    def give(self, task: Task | None) -> None:
        self._empty.acquire()
        self._task = task
        self._full.release()

    def take(self) -> Task | None:
        self._full.acquire()
        task, self._task = self._task, None
        self._empty.release()
        return task


def _work(post: _Post, thread: int) -> None:
    while (task := post.take()) is not None:
        run_ops(task.ops, task.first, task.last, task.step, thread)


def _dismiss(posts: list[_Post]) -> None:
    for post in posts:
        post.give(None)
