"""The same logits on other kinds of CPU: bit for bit where there is FMA, closely where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cpu_kinds import FEATURES, RUNNABLE, environment
from engine.nano import HELDOUT, nano_files
from engine.toys import distance
from pythia_gguf.engine.model import load

pytestmark = pytest.mark.slow

# Files with tensors of every format.
QUANTS = ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_M", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS")
FILES = (*((quant, "int8") for quant in QUANTS), ("F16", "float32"))
ALL = [(cpu, *file) for cpu in RUNNABLE for file in FILES]

RUN = """
import sys
import numpy as np
from pythia_gguf.engine.model import load
model = load(sys.argv[1], threads=2, gelu="erf", activations=sys.argv[2])
ids = list(map(int, sys.argv[4].split(",")))
# Products of many tokens and of few have kernels of their own.
np.save(sys.argv[3], np.concatenate([model.logits(ids), model.logits(ids[:5])]))
"""


def elsewhere(cpu: str, quant: str, activations: str, ids: list[int], out: Path) -> np.ndarray:
    """Logits from a process that compiles for another CPU."""
    command = [sys.executable, "-c", RUN, str(nano_files()[quant]), activations, str(out), ",".join(map(str, ids))]
    subprocess.run(command, env=environment(cpu), check=True)
    return np.load(out)


IN_THE_SUITE = [("haswell", "IQ4_XS", "int8"), ("alderlake", "Q4_K_M", "int8"), ("x86-64", "Q3_K_M", "int8")]


@pytest.mark.parametrize(
    ("cpu", "quant", "activations"),
    [pytest.param(*case, marks=[] if case in IN_THE_SUITE else pytest.mark.campaign) for case in ALL],
)
def test_logits_are_those_of_this_machine(cpu: str, quant: str, activations: str, tmp_path: Path):
    model = load(nano_files()[quant], threads=2, gelu="erf", activations=activations)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8")[:500])[:40]
    here = np.concatenate([model.logits(ids), model.logits(ids[:5])])
    there = elsewhere(cpu, quant, activations, ids, tmp_path / "logits.npy")
    if "+fma" in FEATURES[cpu]:
        assert np.array_equal(here, there)
    else:
        # Without FMA sums are rounded twice, which flips some int8 codes of activations by one of 127 steps: errors
        # of the size that int8 has anyway, here some hundredths of a standard deviation. Plain weights stay at
        # float32's error.
        assert distance(there, here) <= (1e-4 if quant == "F16" else 0.1)
        assert not np.array_equal(here, there)
