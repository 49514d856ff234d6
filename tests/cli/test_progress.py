"""What a long run says: rates and time left of the work alone, one line for compiling, few lines in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.nano import HELDOUT, NANO
from kept_kernels import copy_kernels
from patience import HANGS_S
from pythia_gguf import quantize
from pythia_gguf.cli.progress import LineProgress, Pace
from pythia_gguf.evals.files import measure_files
from pythia_gguf.progress import COMPILING


class Clock:
    """Time as a test tells it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_that_of_recent_work():
    """Compiling for a minute before the first piece is not work; a job of 150 s was announced as 113,897 s."""
    clock = Clock()
    pace = Pace(1500, clock)
    assert (pace.rate, pace.said) == (None, "0%")
    clock.now += 60
    pace.add(10)
    assert (pace.rate, pace.said) == (None, "1%")  # one piece is no rate
    for _ in range(3):
        clock.now += 1
        pace.add(10)
    assert pace.rate == 10.0
    assert pace.said == "3%, about 146 s left"  # 1460 units of 10 a second
    clock.now += 40
    pace.add(10)  # something else took 40 s
    for _ in range(40):
        clock.now += 1
        pace.add(20)
    assert pace.rate == pytest.approx(20.0)
    assert pace.said == "57%, about 32 s left"  # (1500 - 850) / 20


def test_a_short_stage_leaves_no_line_and_a_long_one_few(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with LineProgress(clock) as progress:
        progress.stage("reading", 10, "bytes")
        clock.now += 1.9
        progress.advance("a", 10)
        progress.stage("measuring", 1000, "tokens")
        for _ in range(100):
            clock.now += 0.3
            progress.advance("Q4_0", 10)
    assert capsys.readouterr().err.splitlines() == [
        *[
            f"measuring: {17 * n}%, about {round((1000 - 170 * n) / (100 / 3))} s left, 33.3 tokens/s, Q4_0"
            for n in range(1, 6)
        ],
        "measuring: 1 k tokens in 30.0 s",
    ]


def test_compiling_is_one_line(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with LineProgress(clock) as progress:
        progress.stage(COMPILING, 2, "kernels")
        for name in ("one", "two"):
            clock.now += 20
            progress.advance(name, 1)
        progress.stage("encoding", 5, "weights")
        progress.advance("x", 5)
    assert capsys.readouterr().err == "compiling 2 kernels, first run only ... 40.0 s\n"
    broken_off = LineProgress(clock)
    broken_off.stage(COMPILING, 1, "kernels")
    broken_off.__exit__(KeyboardInterrupt, None, None)
    assert capsys.readouterr().err == "compiling 1 kernel, first run only ... \n"


@pytest.mark.slow
def test_a_first_run_says_once_that_it_compiles_and_the_next_nothing(tmp_path: Path):
    """In a cache that lacks one kernel of each command."""

    def err(*line: str, without: str) -> str:
        cache = tmp_path / without
        if not cache.exists():
            copy_kernels(cache, without=without)
        done = subprocess.run(
            [sys.executable, "-m", "pythia_gguf", *line],
            env=os.environ | {"PYTHIA_GGUF_CACHE": str(cache)},
            capture_output=True, text=True, check=True, timeout=HANGS_S,
        )  # fmt: skip
        return done.stderr

    made = quantize(NANO, tmp_path / "made", quants="Q8_0", keep_f16=True)
    (plain,) = (str(file.path) for file in made.files if file.quant == "F16")
    measure_files([plain], reference=plain, text=HELDOUT, n_windows=1, context=64)
    quantized = ("quantize", str(NANO), "--quants", "Q8_0", "--keep-f16", "--out")
    first = err(*quantized, str(tmp_path / "out"), without="q4_0.encode_q8_0")
    assert len(re.findall(r"^compiling \d kernels?, first run only \.\.\. [\d.]+ s$", first, re.M)) == 1, first
    assert "compiling" not in err(*quantized, str(tmp_path / "again"), without="q4_0.encode_q8_0")
    measured = ("measure", plain, "--reference", plain, "--text", str(HELDOUT), "--chunks", "1", "--context", "64")
    first = err(*measured, without="ops.norm_op")
    assert len(re.findall(r"^compiling \d+ kernels?, first run only \.\.\. [\d.]+ s$", first, re.M)) == 1, first
    assert "compiling" not in err(*measured, without="ops.norm_op")


def test_a_stage_without_pieces_says_what_it_does():
    """Where nothing can be counted, as while a long text becomes tokens."""
    code = (
        "import sys\nfrom pythia_gguf.cli import progress\nprogress._SHORT_S = 0.01\n"
        "with progress.LineProgress() as told:\n    told.stage('tokenizing', 9, 'bytes')\n    sys.stdin.readline()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        assert run.stderr.readline() == b"tokenizing ...\n"
        run.stdin.close()
