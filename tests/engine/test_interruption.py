"""A signal's exception may come at any moment; the model works on as if nothing had been."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from engine.nano import nano_files
from patience import HANGS_S
from pythia_gguf.engine.model import load


class Bell(BaseException):
    """What the handler raises."""


@pytest.fixture
def bell() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Bell

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_exception_at_any_moment_leaves_a_model_that_works(bell: None):
    model = load(nano_files()["Q4_K_M"], threads=3)
    ids = list(range(100, 130))
    whole = model.logits(ids)
    n_rung = 0
    for i in range(150):
        try:
            signal.setitimer(signal.ITIMER_REAL, 2e-4 + i * 2e-5)
            for _ in range(20):
                model.logits(ids)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Bell:
            n_rung += 1
    assert n_rung > 100
    assert np.array_equal(model.logits(ids), whole)


def seconds_of(pid: int) -> float:
    """Processor time of a process and of those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_ctrl_c_ends_generate_within_a_moment():
    command = [
        sys.executable,
        "-m",
        "pythia_gguf",
        "generate",
        str(nano_files()["Q4_K_M"]),
        "def",
        "--max-tokens",
        "100000",
    ]
    others = seconds_of_children()
    # Whoever runs the tests in the background has SIGINT ignored, and what is ignored is inherited.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Greedy: this text goes round and round, and never ends by itself.
    run = subprocess.Popen([*command, "--shift", "--temperature", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    assert run.stdout is not None
    assert run.stdout.read(20)
    until_then = seconds_of(run.pid)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=HANGS_S)
    # Of its own time, two threads: how long that takes on the clock is up to who shares the processors. All the text
    # would take 20 s and more.
    assert seconds_of_children() - others - until_then < 2
    assert run.returncode == 130
    assert err.decode().splitlines()[-1].startswith("Interrupted")
    assert b"Traceback" not in err


class Ringing:
    """A queue of `Workers` at which the exception of a signal's handler comes, several times one after the other."""

    def __init__(self, queue: SimpleQueue[Any], *, n: int, is_heard: bool) -> None:
        self.queue, self.left, self.is_heard = queue, n, is_heard

    def put(self, task: object) -> None:
        if not self.left or self.is_heard:
            self.queue.put(task)
        if self.left:
            self.left -= 1
            raise Bell


@pytest.mark.parametrize(("i_queue", "is_heard"), [(0, False), (0, True), (1, True)])
def test_signals_that_come_again_and_again_leave_no_step_half_done(i_queue: int, is_heard: bool):
    """The second comes while the first one's damage is repaired, the third while the second's is."""
    model = load(nano_files()["Q4_K_M"], threads=3)
    ids = list(range(100, 130))
    whole = model.logits(ids)
    queues = model.runner.workers._queues
    ringing = Ringing(queues[i_queue], n=3, is_heard=is_heard)
    queues[i_queue] = ringing  # type: ignore[call-overload]
    with pytest.raises(Bell):
        model.logits(ids)
    assert ringing.left == 0
    assert model.runner.workers._task is None
    assert np.array_equal(model.logits(ids), whole)


def test_a_step_that_is_left_half_done_is_finished_before_the_next():
    """Where a signal comes between two attempts to repair, the exception gets out: the next step repairs first."""
    model = load(nano_files()["Q4_K_M"], threads=3)
    ids = list(range(100, 130))
    whole = model.logits(ids)
    finish = model.runner.workers._finish
    calls = []

    def interrupted() -> None:
        calls.append(model.runner.workers._task)
        if len(calls) == 2:  # 1 is before the step begins
            for queue in model.runner.workers._queues:
                queue.put(model.runner.workers._task)
            raise Bell
        finish()

    model.runner.workers._finish = interrupted  # type: ignore[method-assign]
    with pytest.raises(Bell):
        model.logits(ids)
    assert model.runner.workers._task is not None
    assert np.array_equal(model.logits(ids), whole)
    assert model.runner.workers._task is None
