"""Machine code that is kept on disk has one symbol for all kernels, and yet none is taken for another one.

Numba names a function by its name and a counter of the process that compiled it, so closures of one name, compiled in
two processes, could have one symbol. Object files name their entry point alike, hide all other names, and are loaded
into libraries of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pythia_gguf.kernels.matmul import known_activations

# Compiles one kernel in a process of its own.
COMPILE = "import sys; from pythia_gguf.kernels import matmul; matmul.matmul_address(*sys.argv[1:])"
# Takes both from disk; the product of ones with ones is the number of columns.
RUN = """
import numpy as np
from pythia_gguf.kernels.matmul import matmul
from pythia_gguf.kernels.packed import new_packed, pack_rows
for name, kind in (("F32", np.float32), ("F16", np.float16)):
    packed = new_packed(name, 16, 64)
    pack_rows(packed, 0, np.ones((16, 64), kind).view(np.uint8))
    assert (matmul(packed, np.ones((8, 64), np.float32), "float32") == 64).all(), name
"""


@pytest.mark.slow
def test_kernels_of_different_processes_are_not_taken_for_each_other(tmp_path: Path):
    env = os.environ | {"PYTHIA_GGUF_CACHE": str(tmp_path)}

    def python(code: str, *args: str) -> None:
        subprocess.run([sys.executable, "-c", code, *args], env=env, check=True)

    pairs = [("F32", "float32"), ("F16", "float32"), ("Q4_0", "int8"), ("F16", "bf16x3")]
    for name, activations in (pair for pair in pairs if pair[1] in known_activations()):
        python(COMPILE, name, activations)
    python(RUN)
