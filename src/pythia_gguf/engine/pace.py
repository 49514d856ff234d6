"""How many threads a step should get: all of them, or one where another process keeps a processor busy.

Threads that wait for each other after every op are as slow as the slowest, so a thread that shares its processor costs
more than it brings. No result depends on the number of threads, so it may change from step to step.
"""

from __future__ import annotations

_PROBE_EVERY = 64
_PROBES = 2
_MEMORY = 0.3
# One thread must win clearly, or noise would decide.
_WINS = 0.92


class Pace:
    """Seconds of recent steps of one size, with all threads and with one.

    n_threads  all of them
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self._seconds: dict[int, float] = {}
        self._best = n_threads
        self._n_steps = 0

    def choose(self) -> int:
        """Threads for the next step: the faster number, and now and then the other one, to measure it again."""
        if self.n_threads == 1:
            return 1
        is_probe = self._n_steps % _PROBE_EVERY >= _PROBE_EVERY - _PROBES
        return self.n_threads + 1 - self._best if is_probe else self._best

    def learn(self, n_threads: int, seconds: float) -> None:
        """Hear how long a step took."""
        before = self._seconds.get(n_threads, seconds)
        self._seconds[n_threads] = before + _MEMORY * (seconds - before)
        self._n_steps += 1
        if len(self._seconds) == 2:
            alone, together = self._seconds[1], self._seconds[self.n_threads]
            self._best = 1 if alone < _WINS * together else self.n_threads
