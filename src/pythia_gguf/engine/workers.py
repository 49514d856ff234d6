"""Threads that live as long as a model and do stretches of an op list together.

Knows no op. The caller's thread works too, as number 0, so that one thread means no other thread at all.
"""

from __future__ import annotations

import threading
import time
import weakref
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from pythia_gguf.engine.pace import Pace
from pythia_gguf.kernels.driver import (
    N_THREADS,
    N_TOKENS,
    OP_WORDS,
    SCRATCH,
    SCRATCH_BYTES,
    SERIAL,
    STATE,
    STEP_WORDS,
    run_ops,
)
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.threads import DONE, STATE_WORDS


class Task(NamedTuple):
    """A stretch of an op list."""

    serial: int
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
        self._serial = 0
        # By the stretch and the number of tokens.
        self._paces: dict[tuple[int, int, int], Pace] = {}
        self._one_caller = threading.Lock()
        # Compiled before there is anything to wait for; see `run`.
        run_ops(aligned((0, OP_WORDS), np.int64), 0, 0, self.new_step(), 0)
        self._queues: list[SimpleQueue[Task | None]] = [SimpleQueue() for _ in range(n_threads - 1)]
        for i, queue in enumerate(self._queues):
            threading.Thread(target=_work, args=(queue, i + 1), daemon=True, name=f"pythia-{i + 1}").start()
        weakref.finalize(self, _dismiss, self._queues)

    def new_step(self) -> np.ndarray:
        """A step that names these threads; the caller fills in the rest."""
        step = aligned((STEP_WORDS,), np.int64)
        step[STATE] = self._state.ctypes.data
        step[SCRATCH] = self._scratch.ctypes.data
        step[SCRATCH_BYTES] = self._scratch.shape[1]
        step[N_THREADS] = self.n_threads
        return step

    def run(self, ops: np.ndarray, first: int, last: int, step: np.ndarray) -> None:
        """Do ops first .. last - 1; they are done when this returns or raises.

        A signal's exception, such as KeyboardInterrupt, may come between any two lines here, while other threads wait
        for this one: then all is said again (they know a task by its number), done, and only then the exception raised.
        """
        with self._one_caller:
            self._serial += 1
            step[SERIAL] = self._serial
            task = Task(self._serial, ops, first, last, step)
            pace = self._paces.setdefault((first, last, int(step[N_TOKENS])), Pace(self.n_threads))
            n_threads = step[N_THREADS] = pace.choose()
            started = time.perf_counter()
            try:
                self._do(task, n_threads)
            except BaseException:
                if self._state[DONE] != task.serial:
                    self._do(task, n_threads)
                raise
            pace.learn(n_threads, time.perf_counter() - started)

    def _do(self, task: Task, n_threads: int) -> None:
        for queue in self._queues[: n_threads - 1]:
            queue.put(task)
        run_ops(task.ops, task.first, task.last, task.step, 0)


def _work(queue: SimpleQueue[Task | None], thread: int) -> None:
    done = 0
    while (task := queue.get()) is not None:
        if task.serial != done:
            done = task.serial
            run_ops(task.ops, task.first, task.last, task.step, thread)
        del task  # it may be the last to hold the memory of a session


def _dismiss(queues: list[SimpleQueue[Task | None]]) -> None:
    for queue in queues:
        queue.put(None)
