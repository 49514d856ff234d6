"""The frozen bytes of llama.cpp, on this machine and as on other kinds of x86-64; needs no llama.cpp."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cpu_kinds import RUNNABLE, environment
from kernels.encode_golden import differing, wrong_levels
from patience import HANGS_S
from pythia_gguf.kernels.encode import ENCODABLE
from pythia_gguf.kernels.iq4_nl import CURVE, MIDPOINT, WITHIN

# One format of each family of kernels; `make campaign` takes all.
FAMILIES = ("Q8_0", "Q4_0", "Q4_K", "Q2_K", "Q3_K", "Q6_K", "IQ4_XS", "Q4_0 weighted", "Q5_K weighted")
ALL = (*ENCODABLE, *(f"{name} weighted" for name in ENCODABLE))
# The kinds whose encoders have code of their own.
OTHER_CPUS = tuple(cpu for cpu in ("haswell", "x86-64") if cpu in RUNNABLE)


@pytest.mark.parametrize("name", ALL)
def test_bytes_are_the_frozen_ones(name):
    assert differing(name) == 0


def test_levels_of_iq4_change_exactly_at_midpoints():
    assert wrong_levels() == 0


def test_guess_at_a_level_leaves_one_midpoint_in_question():
    """The curve, rounded, is k at the midpoint of levels k and k + 1, and 0 or 14 where no midpoint is beyond."""

    def guess(v: float) -> float:
        return CURVE[0] + CURVE[1] * v - CURVE[2] * v * abs(v)

    margin = 0.05  # float32 is wrong by less than a millionth
    for k, v in ((0, -float(WITHIN)), *enumerate(map(float, MIDPOINT)), (14, float(WITHIN))):
        assert abs(guess(v) - k) < 0.5 - margin


def run_on(cpu: str, names: tuple[str, ...]) -> list[str]:
    """Encode in a process whose kernels are compiled for another CPU."""
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("encode_golden.py"), ",".join(names)],
        env=environment(cpu),
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS_S,
    ).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_other_cpus_give_the_same_bytes(cpu):
    assert run_on(cpu, (*FAMILIES, "levels")) == [f"{name} 0" for name in (*FAMILIES, "levels")]


@pytest.mark.campaign
@pytest.mark.parametrize("cpu", RUNNABLE)
def test_other_cpus_give_the_same_bytes_in_every_format(cpu):
    assert run_on(cpu, (*ALL, "levels")) == [f"{name} 0" for name in (*ALL, "levels")]


@pytest.mark.slow
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_environment_of_these_tests_makes_numba_compile_for_another_cpu(cpu):
    """The subprocess compiles for the CPU named: no AVX-512 register appears in its machine code."""
    code = (
        "import numpy as np, numba; from numba import njit\n"
        "f = njit(lambda x: (x * x).sum()); f(np.ones(64, np.float32))\n"
        "asm = ''.join(f.inspect_asm().values()); print('zmm' in asm, 'ymm' in asm)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment(cpu), capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[0] == "False"
    if cpu == "x86-64":
        assert shown.split()[1] == "False"
