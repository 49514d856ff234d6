"""The same logits on other kinds of CPU: bit for bit where there is FMA, closely where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from engine.toys import distance
from pythia_gguf.engine.model import load

pytestmark = pytest.mark.slow

# Kernels ask for features by name, so those that a CPU has must be named.
FEATURES = {"haswell": "+avx2,+fma,+f16c", "x86-64": ""}
FILES = (("Q3_K_M", "int8"), ("IQ4_XS", "int8"), ("F16", "float32"))
ALL = [(cpu, *file) for cpu in FEATURES for file in FILES]

RUN = """
import sys
import numpy as np
from pythia_gguf.engine.model import load
model = load(sys.argv[1], threads=2, gelu="erf", activations=sys.argv[2])
np.save(sys.argv[3], model.logits(list(map(int, sys.argv[4].split(",")))))
"""


def elsewhere(cpu: str, quant: str, activations: str, ids: list[int], out: Path) -> np.ndarray:
    """Logits from a process that compiles for another CPU."""
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": FEATURES[cpu]}
    command = [sys.executable, "-c", RUN, str(nano_files()[quant]), activations, str(out), ",".join(map(str, ids))]
    subprocess.run(command, env=env, check=True)
    return np.load(out)


IN_THE_SUITE = [("haswell", "IQ4_XS", "int8"), ("x86-64", "Q3_K_M", "int8")]


@pytest.mark.parametrize(
    ("cpu", "quant", "activations"),
    [pytest.param(*case, marks=[] if case in IN_THE_SUITE else pytest.mark.campaign) for case in ALL],
)
def test_logits_are_those_of_this_machine(cpu: str, quant: str, activations: str, tmp_path: Path):
    model = load(nano_files()[quant], threads=2, gelu="erf", activations=activations)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8")[:500])[:40]
    here = model.logits(ids)
    there = elsewhere(cpu, quant, activations, ids, tmp_path / "logits.npy")
    if cpu == "haswell":
        assert np.array_equal(here, there)
    else:
        # Without FMA sums are rounded twice, which flips some int8 codes of activations by one of 127 steps: errors
        # of the size that int8 has anyway, here some hundredths of a standard deviation. Plain weights stay at
        # float32's error.
        assert distance(there, here) <= (1e-4 if quant == "F16" else 0.1)
        assert not np.array_equal(here, there)
