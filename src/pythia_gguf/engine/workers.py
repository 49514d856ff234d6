"""Threads that live as long as a model and do stretches of an op list together.

The caller's thread works too, as number 0, so with one thread there is no other at all.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from functools import cache
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from pythia_gguf.engine.pace import Pace
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.kernels.driver import compile_run_ops, run_ops
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.op_words import N_THREADS, N_TOKENS, SCRATCH, SCRATCH_BYTES, SERIAL, STATE, STEP_WORDS
from pythia_gguf.kernels.threads import DONE, STATE_WORDS


class Task(NamedTuple):
    """A stretch of an op list."""

    serial: int
    ops: np.ndarray
    first: int
    last: int
    step: np.ndarray


class Workers(ProcessBound):
    """A fixed number of threads with scratch memory of their own, started by the first step of each process.

    n_threads  number of threads, the caller's included
    """

    def __init__(self, n_threads: int, scratch_bytes: int) -> None:
        """Take memory; threads end with the last reference to this object."""
        self.n_threads = n_threads
        self._scratch = aligned((n_threads, scratch_bytes), np.uint8)
        self._state = aligned((STATE_WORDS,), np.int64)
        self._serial = 0
        # Set from the moment when a thread may get a task until all are done with it.
        self._task: Task | None = None
        self._held: object = None
        self._caller = 0
        # One pace for each length of a list, stretch of it and number of tokens.
        self._paces: dict[tuple[int, int, int, int], Pace] = {}
        self._one_caller = threading.Lock()
        self._queues: list[SimpleQueue[Task | None]] = []
        # Compile now: in `run`, other threads would wait for it, and a signal could interrupt it.
        compile_run_ops()
        weakref.finalize(self, _dismiss, self._queues)
        _all_workers().add(self)

    def new_step(self) -> np.ndarray:
        """A step that names these threads; the caller fills in the rest."""
        step = aligned((STEP_WORDS,), np.int64)
        step[STATE] = self._state.ctypes.data
        step[SCRATCH] = self._scratch.ctypes.data
        step[SCRATCH_BYTES] = self._scratch.shape[1]
        step[N_THREADS] = self.n_threads
        return step

    def run(self, ops: np.ndarray, first: int, last: int, step: np.ndarray, held: object = None) -> None:
        """Do ops first .. last - 1; they are done when this returns or raises.

        held  objects whose memory the ops have addresses of; they stay alive until the ops are done

        A signal's exception, such as KeyboardInterrupt, may come between any two lines here, while other threads wait
        for this one. Then this thread hands the task out again (threads know it by its number and do it once), does its
        own part, and only then lets the exception out.
        """
        with self._one_caller:
            # 1. A caller before us may have been stopped by a signal between its task and the end of it.
            self._finish()
            # 2. Fill in the step while no other thread can see it.
            self._serial += 1
            step[SERIAL] = self._serial
            pace = self._paces.setdefault((len(ops), first, last, int(step[N_TOKENS])), Pace(self.n_threads))
            n_threads = step[N_THREADS] = pace.choose()
            started = time.perf_counter()
            self._caller = threading.get_ident()
            self._held = held
            # 3. From this assignment on, the task will be done whatever happens.
            self._task = Task(self._serial, ops, first, last, step)
            self._finish()
            pace.learn(n_threads, time.perf_counter() - started)

    def settle(self) -> None:
        """Finish a task that a signal's exception has interrupted, if any, before its memory is written to."""
        if self._task is not None:
            with self._one_caller:
                self._finish()

    def _finish(self) -> None:
        """Do the task that was begun, however many signals come; raises the exception of the first one."""
        try:
            while self._task is not None:
                if self._state[DONE] != self._task.serial:
                    self._do(self._task)
                self._task = self._held = None
        except BaseException:
            self._finish()
            raise

    def _do(self, task: Task) -> None:
        self._start()
        self._hand_out(task)
        run_ops(task.ops, task.first, task.last, task.step, 0)

    def _start(self) -> None:
        """Start the threads that this process lacks; after a fork it lacks all."""
        while len(self._queues) < self.n_threads - 1:
            queue: SimpleQueue[Task | None] = SimpleQueue()
            i = len(self._queues) + 1
            threading.Thread(target=_work, args=(queue, i), daemon=True, name=f"pythia-{i}").start()
            self._queues.append(queue)

    def _hand_out(self, task: Task) -> None:
        for queue in self._queues[: task.step[N_THREADS] - 1]:
            queue.put(task)

    def _after_fork(self) -> None:
        """Begin anew in a child: it has only the thread that forked, and locks are as the other threads left them."""
        self._queues.clear()
        if self._task is None or self._caller != threading.get_ident():
            self._task = self._held = None
            self._one_caller = threading.Lock()
            self._state[:] = 0
        elif self._state[DONE] != self._task.serial:
            # A signal's handler has forked in the middle of a step, which goes on in the child when the handler
            # returns.
            self._state[:] = 0
            self._start()
            self._hand_out(self._task)


def _work(queue: SimpleQueue[Task | None], thread: int) -> None:
    done = 0
    while (task := queue.get()) is not None:
        if task.serial != done:
            done = task.serial
            run_ops(task.ops, task.first, task.last, task.step, thread)
        del task  # it may be the last to hold the memory of a session


@cache
def _all_workers() -> weakref.WeakSet[Workers]:
    """All workers of this process; after a fork, the child lets each of them begin anew."""
    workers: weakref.WeakSet[Workers] = weakref.WeakSet()

    def tell() -> None:
        for each in workers:
            each._after_fork()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=tell)
    return workers


def _dismiss(queues: list[SimpleQueue[Task | None]]) -> None:
    for queue in queues:
        queue.put(None)
