"""The one thread that runs models: texts of all callers side by side, a step of each batch in turn.

Callers live in an event loop. They hand over texts and hear after each step what has become of them; nothing else
crosses between the two threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pythia_gguf.engine.batch import Batch
from pythia_gguf.engine.writing import Writing
from pythia_gguf.errors import PythiaGGUFError
from pythia_gguf.serve.metrics import Metrics

# Errors of one batch or one piece of other work: they end it, and nothing else.
Failure = PythiaGGUFError | MemoryError
_FAILURES = (PythiaGGUFError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a step has done to a text.

    pieces    of new text
    n_ids     tokens of prompt and text now
    is_ended  whether it has come to its end
    error     why it will never end; it is in no batch any more
    """

    pieces: list[str]
    n_ids: int
    is_ended: bool
    error: Failure | None = None


Listener = Callable[[News], None]


class EngineThread:
    """Runs batches and other work, as long as there is any; waits otherwise.

    has_failed  whether it has died of a mistake of ours
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, metrics: Metrics, on_fault: Callable[[], None]) -> None:
        """`on_fault` is called in the loop when the thread has died of a mistake of ours."""
        self._loop, self._metrics, self._on_fault = loop, metrics, on_fault
        self.has_failed = False
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._texts: dict[Batch, dict[Writing, Listener]] = {}
        self._work: list[tuple[Iterator[None], Callable[[Failure | None], None]]] = []
        self._one_work = asyncio.Lock()
        self._news: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="pythia-serve", daemon=True)
        self._thread.start()

    def write(self, batch: Batch, writing: Writing, listener: Listener) -> None:
        """Write a text that `batch.check` has passed; the listener is called in the loop."""
        self._commands.put(lambda: self._insert(batch, writing, listener))

    def leave(self, batch: Batch, writing: Writing) -> None:
        """Take a text out before the next step; nobody hears of it any more."""
        self._commands.put(lambda: self._remove(batch, writing))

    async def do(self, pieces: Iterator[None]) -> None:
        """Do other work, one piece after each step of the batches. Raises what the work raises.

        Work has memory of its own, so the next one begins when the last has ended.
        """
        async with self._one_work:
            done = self._loop.create_future()

            def end(error: Failure | None) -> None:
                if not done.done():
                    done.set_result(error)

            entry = (pieces, end)
            self._commands.put(lambda: self._work.append(entry))
            try:
                error = await done
            except asyncio.CancelledError:
                self._commands.put(lambda: self._work.remove(entry) if entry in self._work else None)
                raise
            if error is not None:
                raise error

    def stop(self) -> None:
        """End the thread after its step, whatever is left to do."""
        self._commands.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._obey():
                started = time.perf_counter()
                for batch in list(self._texts):
                    self._step(batch)
                for entry in list(self._work):
                    self._do_piece(entry)
                self._metrics.busy_s += time.perf_counter() - started
                self._tell()
        except BaseException:
            self.has_failed = True
            self._loop.call_soon_threadsafe(self._on_fault)
            raise

    def _obey(self) -> bool:
        """Follow all commands that have come, and wait for one where there is nothing to do; False: the end."""
        try:
            while True:
                command = self._commands.get(block=not self._texts and not self._work)
                if command is None:
                    return False
                command()
        except Empty:
            return True

    def _insert(self, batch: Batch, writing: Writing, listener: Listener) -> None:
        batch.insert(writing)
        self._texts.setdefault(batch, {})[writing] = listener

    def _remove(self, batch: Batch, writing: Writing) -> None:
        if self._forget(batch, writing) is not None:
            batch.remove(writing)

    def _forget(self, batch: Batch, writing: Writing) -> Listener | None:
        texts = self._texts.get(batch, {})
        listener = texts.pop(writing, None)
        if not texts:
            self._texts.pop(batch, None)
        return listener

    def _step(self, batch: Batch) -> None:
        """Run a step; a failure ends all texts of the batch, because it does not say whose it is."""
        error: Failure | None = None
        went_on: list[tuple[Writing, list[str]]] = []
        try:
            went_on = batch.step()
        except _FAILURES as e:
            error = e
            for writing in self._texts[batch]:
                batch.remove(writing)
                went_on.append((writing, []))
        self._metrics.n_steps += 1
        for writing, pieces in went_on:
            is_ended = writing.finish_reason is not None
            listener = self._texts[batch][writing]
            if is_ended or error is not None:
                self._forget(batch, writing)
            news = News(pieces=pieces, n_ids=len(writing.ids), is_ended=is_ended, error=error)
            self._news.append(lambda listener=listener, news=news: listener(news))  # type: ignore[misc]

    def _do_piece(self, entry: tuple[Iterator[None], Callable[[Failure | None], None]]) -> None:
        pieces, end = entry
        error: Failure | None = None
        try:
            next(pieces)
            return
        except StopIteration:
            pass
        except _FAILURES as e:
            error = e
        self._work.remove(entry)
        self._news.append(lambda: end(error))

    def _tell(self) -> None:
        """Let the loop hear all news of a turn at once."""
        if self._news:
            news, self._news = self._news, []
            self._loop.call_soon_threadsafe(_call_all, news)


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
