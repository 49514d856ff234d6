"""What a traced job would take on another number of processors and another disk: its tasks, scheduled anew.

The rules are those of the press (`press/pipeline.py`). A processor that is free takes the task that has been ready for
longest from a queue of takers, else the next encoding, if there are buffers for its slab. So many tasks of each kind go
on at a time as the run has threads for them. A task works for its processor time, and then waits for the disk, which
writes for one task at a time; meanwhile its processor does something else.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece of work; tasks are called by their places in a list.

    name     for people
    after    places of the tasks that must be done before, all of them earlier in the list
    cpu_s    processor time
    n_bytes  bytes for the disk when that is over
    slab     the slab whose buffers it reads or fills; None: it needs none
    encodes  whether it takes buffers for its slab, which are free again when all tasks of the slab are done
    """

    name: str
    after: tuple[int, ...]
    cpu_s: float
    n_bytes: int = 0
    slab: int | None = None
    encodes: bool = False


def longest_chain(tasks: Sequence[Task], disk_bytes_per_s: float) -> tuple[float, list[str]]:
    """Seconds of the longest chain of tasks that wait for each other, and their names: the limit of any machine."""
    ends: list[float] = []
    before: list[int | None] = []
    for task in tasks:
        last = max(task.after, key=lambda i: ends[i], default=None)
        ends.append((ends[last] if last is not None else 0.0) + task.cpu_s + task.n_bytes / disk_bytes_per_s)
        before.append(last)
    at: int | None = max(range(len(tasks)), key=lambda i: ends[i])
    seconds, names = ends[at], []
    while at is not None:
        names.append(tasks[at].name)
        at = before[at]
    return seconds, names[::-1]


def replay(
    tasks: Sequence[Task], *, processors: int, threads: int, n_taking: int, n_buffers: int, disk_bytes_per_s: float
) -> float:
    """Seconds that all tasks take.

    threads    tasks that encode at a time at most
    n_taking   others at a time at most
    n_buffers  slabs that may have buffers at a time
    """
    run = _Run(tasks, processors, {True: threads, False: n_taking}, n_buffers)
    # Events are the ends of a task's two parts: (time, number to keep order, task, whether it has computed until then).
    events: list[tuple[float, int, int, bool]] = []
    now, disk_is_free, n_events = 0.0, 0.0, 0
    while True:
        # 1. Start whatever may start now.
        while (i := run.start()) is not None:
            n_events += 1
            heapq.heappush(events, (now + tasks[i].cpu_s, n_events, i, True))
        if not events:
            assert run.is_done, "tasks wait for each other in a circle"
            return now
        # 2. Go on to the next end. After its processor part a task queues for the disk, or is done.
        now, _, i, has_computed = heapq.heappop(events)
        if has_computed:
            run.n_free += 1
        if has_computed and tasks[i].n_bytes:
            disk_is_free = max(now, disk_is_free) + tasks[i].n_bytes / disk_bytes_per_s
            n_events += 1
            heapq.heappush(events, (disk_is_free, n_events, i, False))
        else:
            run.finish(i)


class _Run:
    """What is ready, and what is free to do it.

    n_free  processors
    """

    def __init__(self, tasks: Sequence[Task], processors: int, n_threads: dict[bool, int], n_buffers: int) -> None:
        self._tasks, self.n_free, self._n_buffers, self._n_threads = tasks, processors, n_buffers, n_threads
        self._n_waits = [len(task.after) for task in tasks]
        self._followers: list[list[int]] = [[] for _ in tasks]
        self._n_of_slab: dict[int | None, int] = {}
        for i, task in enumerate(tasks):
            self._n_of_slab[task.slab] = self._n_of_slab.get(task.slab, 0) + 1
            for earlier in task.after:
                self._followers[earlier].append(i)
        self._ready: dict[bool, deque[int]] = {True: deque(), False: deque()}
        self._n_left = len(tasks)
        for i, n in enumerate(self._n_waits):
            if n == 0:
                self._ready[tasks[i].encodes].append(i)

    @property
    def is_done(self) -> bool:
        return self._n_left == 0

    def start(self) -> int | None:
        """The next task that can start, if any."""
        for encodes in (False, True):
            has_memory = self._n_buffers > 0 or not encodes
            if self._ready[encodes] and self.n_free and self._n_threads[encodes] and has_memory:
                self.n_free -= 1
                self._n_threads[encodes] -= 1
                self._n_buffers -= encodes
                return self._ready[encodes].popleft()
        return None

    def finish(self, i: int) -> None:
        """Give back what a task has held, and let those that waited for it get ready."""
        task = self._tasks[i]
        self._n_left -= 1
        self._n_threads[task.encodes] += 1
        self._n_of_slab[task.slab] -= 1
        if task.slab is not None and self._n_of_slab[task.slab] == 0:
            self._n_buffers += 1
        for follower in self._followers[i]:
            self._n_waits[follower] -= 1
            if self._n_waits[follower] == 0:
                self._ready[self._tasks[follower].encodes].append(follower)
