"""The frozen bytes of llama.cpp, on this machine and on the other kinds of x86-64; needs no llama.cpp."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.encode_golden import differing
from patience import HANGS_S
from pythia_gguf.kernels.encode import ENCODABLE

# One format of each family of kernels; `make campaign` takes all.
FAMILIES = ("Q8_0", "Q4_0", "Q4_K", "Q2_K", "Q3_K", "Q6_K", "IQ4_XS", "Q4_0 weighted", "Q5_K weighted")
ALL = (*ENCODABLE, *(f"{name} weighted" for name in ENCODABLE))
OTHER_CPUS = ("haswell", "x86-64") if platform.machine().lower() in ("x86_64", "amd64") else ()


@pytest.mark.parametrize("name", ALL)
def test_bytes_are_the_frozen_ones(name):
    assert differing(name) == 0


def run_on(cpu: str, names: tuple[str, ...]) -> list[str]:
    """Encode in a process whose kernels are compiled for another CPU: AVX2 without AVX-512, or SSE2 alone."""
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("encode_golden.py"), ",".join(names)],
        env=os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS_S,
    ).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_other_cpus_give_the_same_bytes(cpu):
    assert run_on(cpu, FAMILIES) == [f"{name} 0" for name in FAMILIES]


@pytest.mark.campaign
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_other_cpus_give_the_same_bytes_in_every_format(cpu):
    assert run_on(cpu, ALL) == [f"{name} 0" for name in ALL]


@pytest.mark.slow
@pytest.mark.parametrize("cpu", OTHER_CPUS)
def test_environment_of_these_tests_makes_numba_compile_for_another_cpu(cpu):
    """The subprocess compiles for the CPU named: no AVX-512 register appears in its machine code."""
    code = (
        "import numpy as np, numba; from numba import njit\n"
        "f = njit(lambda x: (x * x).sum()); f(np.ones(64, np.float32))\n"
        "asm = ''.join(f.inspect_asm().values()); print('zmm' in asm, 'ymm' in asm)"
    )
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert shown.split()[0] == "False"
    if cpu == "x86-64":
        assert shown.split()[1] == "False"
