"""Threads follow what is faster; times are given by hand."""

from __future__ import annotations

from pythia_gguf.engine.pace import Pace


def run(pace: Pace, n_steps: int, alone: float, together: float) -> list[int]:
    """Threads of each step, when one thread takes `alone` seconds and all take `together`."""
    chosen = []
    for _ in range(n_steps):
        n = pace.choose()
        chosen.append(n)
        pace.learn(n, alone if n == 1 else together)
    return chosen


def test_all_threads_where_they_are_faster():
    chosen = run(Pace(2), 640, alone=0.010, together=0.006)
    assert chosen.count(1) <= 20  # now and then one is tried
    assert set(chosen[:60]) == {2}


def test_one_thread_while_a_processor_is_busy_and_all_again_after():
    pace = Pace(4)
    run(pace, 100, alone=0.010, together=0.004)
    busy = run(pace, 200, alone=0.010, together=0.030)
    assert busy[-100:].count(1) >= 95
    after = run(pace, 300, alone=0.010, together=0.004)
    assert after[-100:].count(4) >= 95


def test_a_small_difference_decides_nothing():
    assert run(Pace(2), 300, alone=0.0095, together=0.0100).count(1) < 12


def test_one_thread_is_one_thread():
    assert set(run(Pace(1), 200, alone=1.0, together=1.0)) == {1}
