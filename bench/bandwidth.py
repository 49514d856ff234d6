"""How fast this machine's threads read memory together: the limit of writing token by token.

Each thread sums its own part of a buffer far larger than the caches, eight cache lines at a time.
"""

from __future__ import annotations

import statistics
import threading
import time

import numba
import numpy as np


@numba.njit(nogil=True)
def _sum(words: np.ndarray) -> int:
    """Sum of uint64, which LLVM turns into wide loads."""
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    return total


def read_bandwidth(threads: int, n_bytes: int = 512 << 20, rounds: int = 7) -> float:
    """Bytes per second, median of rounds after one that is not counted."""
    words = np.ones(n_bytes // 8, np.uint64)
    parts = np.array_split(words, threads)
    seconds = []
    for _ in range(rounds + 1):
        workers = [threading.Thread(target=_sum, args=(part,)) for part in parts]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds.append(time.perf_counter() - started)
    return n_bytes / statistics.median(seconds[1:])


if __name__ == "__main__":
    for n in (1, 2):
        print(f"{n} threads: {read_bandwidth(n) / 1e9:.1f} GB/s")
