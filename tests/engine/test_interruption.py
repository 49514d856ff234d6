"""A signal's exception may come at any moment; the model works on as if nothing had been."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from engine.nano import nano_files
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
    run = subprocess.Popen([*command, "--shift"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.read(20)
    started = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert run.returncode == 130
    assert err.decode().splitlines()[-1].startswith("Interrupted")
    assert b"Traceback" not in err
