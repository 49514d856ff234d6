"""Slabs on their way: encoded in any order, then taken in order, by each taker at its own pace.

Some threads encode. When a slab and all before it are encoded, it joins the queue of every taker; other threads serve
the queues, each by one thread at a time. So a taker gets slabs front to back and waits for no other taker. A slab keeps
its buffers until its last taker is done with it, and only so many slabs have buffers: a slow disk stops the encoders
instead of filling the memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any

from pythia_gguf.cpus import workers_of
from pythia_gguf.press.slabs import Buffers, Slab, encode_slab
from pythia_gguf.press.weights import WeightReader

Taker = Callable[[Slab, Mapping[str, memoryview]], None]
"""Takes a slab and its bytes by format, which are valid until it returns; slabs come in order, one at a time."""

Watch = Callable[[Slab, Taker | None], AbstractContextManager[None]]
"""Gives what surrounds a task: the encoding of a slab where there is no taker, else its taking."""


def slabs_on_their_way(threads: int) -> int:
    """How many slabs have buffers at a time: one for each thread that encodes, and some that are being taken."""
    return threads + 6


def taking_threads(threads: int) -> int:
    """How many threads take while `threads` encode.

    To take is a third of the work, but some takers wait for the disk. More threads than needed only get in each other's
    way: each wants the interpreter for a moment after every write and every hash.
    """
    return 1 if threads == 1 else threads // 4 + 2


class _Job:
    """A slab on its way, and the buffers that it holds until its last taker is done with it.

    encoding  what becomes of its encoding
    encoded   bytes by format, as soon as there are any
    n_left    takers that have not taken it yet
    """

    encoding: Future[None]

    def __init__(self, slab: Slab, buffers: Buffers, n_takers: int) -> None:
        self.slab, self.buffers, self.n_left = slab, buffers, n_takers
        self.encoded: Mapping[str, memoryview] | None = None


class _Queue:
    """Encoded slabs that a taker has not taken yet; the first one may be in work."""

    def __init__(self, take: Taker) -> None:
        self.take = take
        self.jobs: deque[_Job] = deque()


class Pipeline:
    """One run of slabs from a source to takers."""

    def __init__(
        self, reader: WeightReader, takers: Sequence[Taker], *, threads: int, watch: Watch | None = None
    ) -> None:
        """Take at least one taker.

        threads  that encode, others take; with one, the caller's own thread does everything
        watch    for measurements; it is called in all threads
        """
        assert takers
        self._reader, self._threads, self._n_taking = reader, threads, taking_threads(threads)
        self._watch: Watch = watch or (lambda slab, taker: nullcontext())
        self._n_slabs = slabs_on_their_way(threads)
        self._free: list[Buffers] = []
        self._n_running = 0
        # What threads tell the caller: a slab that all have taken, or a task that has failed.
        self._heard: SimpleQueue[_Job | Future[None]] = SimpleQueue()
        # The lock guards these: slabs that are not in the queues yet, queues that no thread serves although they hold
        # slabs, and how many threads serve queues.
        self._lock = threading.Lock()
        self._coming: deque[_Job] = deque()
        self._queues = [_Queue(take) for take in takers]
        self._ready: deque[_Queue] = deque()
        self._n_serving = 0
        self._is_over = False

    def run(self, slabs: Iterable[Slab], advance: Callable[[str, int], None]) -> None:
        """Hand every slab to all takers, and call `advance` in the caller's thread when all have taken it.

        Raises what encoding raises, of several slabs what the first one in order does, and what takers raise; whatever
        happens, no task runs any more when this returns.
        """
        with workers_of(self._threads, "encode") as encoders, workers_of(self._n_taking, "take") as self._servers:
            try:
                for slab in slabs:
                    # 1. Learn which slabs are done, and wait for one if as many as may have buffers are on their way.
                    while self._n_running == self._n_slabs or not self._heard.empty():
                        self._hear(advance)
                    # 2. Let a thread encode the slab in buffers that another slab has left, or in new ones.
                    buffers = self._free.pop() if self._free else Buffers()
                    job = _Job(slab, buffers, len(self._queues))
                    self._n_running += 1
                    with self._lock:
                        self._coming.append(job)
                    job.encoding = self._submit(encoders, self._encode, job)
                # 3. Wait for the rest.
                while self._n_running:
                    self._hear(advance)
            # 4. If a task has failed or the caller is interrupted, nothing new begins.
            finally:
                self._is_over = True
                encoders.shutdown(cancel_futures=True)

    def _hear(self, advance: Callable[[str, int], None]) -> None:
        """Wait for the next thing that a thread tells; raises what ended a task."""
        heard = self._heard.get()
        if isinstance(heard, Future):
            with self._lock:
                coming = [*self._coming]
            # A slab before this one may fail too, and then the user learns of that one, as with a single thread.
            for job in coming:
                job.encoding.result()
            heard.result()
            return
        self._n_running -= 1
        self._free.append(heard.buffers)
        advance(heard.slab.tensor.name, heard.slab.n_weights)

    def _submit(self, pool: Executor, task: Callable[..., None], *args: Any) -> Future[None]:
        future = pool.submit(task, *args)
        future.add_done_callback(self._report)
        return future

    def _report(self, future: Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._heard.put(future)

    def _encode(self, job: _Job) -> None:
        """Encode a slab; where it closes a gap in the order, all slabs up to the next gap join the queues."""
        if self._is_over:
            return
        with self._watch(job.slab, None):
            job.encoded = encode_slab(self._reader, job.slab, job.buffers)
        with self._lock:
            while self._coming and self._coming[0].encoded is not None:
                self._join_queues(self._coming.popleft())
            n = min(len(self._ready), self._n_taking - self._n_serving)
            self._n_serving += n
        for _ in range(n):
            self._submit(self._servers, self._serve)

    def _join_queues(self, job: _Job) -> None:
        for queue in self._queues:
            queue.jobs.append(job)
            if len(queue.jobs) == 1:
                self._ready.append(queue)

    def _serve(self) -> None:
        """Serve queues, whichever has waited longest, slab by slab until none is ready."""
        queue = self._next(None)
        while queue:
            job = queue.jobs[0]
            assert job.encoded is not None
            with self._watch(job.slab, queue.take):
                queue.take(job.slab, job.encoded)
            queue = self._next(queue)

    def _next(self, served: _Queue | None) -> _Queue | None:
        """Give back the queue that was served, and take the next one, if there is one and the run goes on."""
        with self._lock:
            if served:
                job = served.jobs.popleft()
                job.n_left -= 1
                if job.n_left == 0:
                    self._heard.put(job)
                if served.jobs:
                    self._ready.append(served)
            if self._ready and not self._is_over:
                return self._ready.popleft()
            self._n_serving -= 1
            return None
