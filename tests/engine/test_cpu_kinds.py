"""The same logits on other kinds of CPU: bit for bit where there is FMA, closely where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cpu_kinds import FEATURES, RUNNABLE, environment
from engine.logits_elsewhere import logits
from engine.nano import nano_files
from engine.toys import distance

pytestmark = pytest.mark.slow

# Files with tensors of every format.
QUANTS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS")
FILES = (*((quant, "int8") for quant in QUANTS), ("F16", "float32"))
ALL = [(cpu, *file) for cpu in RUNNABLE for file in FILES]


def elsewhere(cpu: str, quant: str, activations: str, out: Path) -> np.ndarray:
    """Logits from a process that compiles for another CPU."""
    program = Path(__file__).with_name("logits_elsewhere.py")
    command = [sys.executable, str(program), str(nano_files()[quant]), activations, str(out)]
    subprocess.run(command, env=environment(cpu), check=True)
    return np.load(out)


IN_THE_SUITE = [("haswell", "IQ4_XS", "int8"), ("alderlake", "Q4_K_M", "int8"), ("x86-64", "Q3_K_M", "int8")]


@pytest.mark.parametrize(
    ("cpu", "quant", "activations"),
    [pytest.param(*case, marks=[] if case in IN_THE_SUITE else pytest.mark.campaign) for case in ALL],
)
def test_logits_are_those_of_this_machine(cpu: str, quant: str, activations: str, tmp_path: Path):
    here = logits(nano_files()[quant], activations)
    there = elsewhere(cpu, quant, activations, tmp_path / "logits.npy")
    if "+fma" in FEATURES[cpu]:
        assert np.array_equal(here, there)
    else:
        # Without FMA sums are rounded twice, which flips some int8 codes of activations by one of 127 steps: errors
        # of the size that int8 has anyway, here some hundredths of a standard deviation. Plain weights stay at
        # float32's error.
        assert distance(there, here) <= (1e-4 if quant == "F16" else 0.1)
        assert not np.array_equal(here, there)
