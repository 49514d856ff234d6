"""A run whose kernels are kept begins without Numba; where one is missing or damaged, Numba makes it again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.nano import ROOT
from patience import HANGS_S
from pythia_gguf.kernels.cache import code_name, stored_code
from pythia_gguf.kernels.encode import compile_encoder
from pythia_gguf.kernels.widen import widen

# Quantizes the sample, and prints which libraries that only a compiler needs were imported.
QUANTIZE = """
import sys
sys.argv = ["pythia", "quantize", "examples/nano", "--out", sys.argv[1], "--quants", "Q8_0", "--quiet"]
from pythia_gguf.cli.main import main
try: main()
except SystemExit as e: assert e.code == 0, e.code
print(*sorted({"numba", "scipy"} & sys.modules.keys()))
"""
# The files of this run's kernels on this CPU; the second one compiles in a second.
NEEDED = (code_name("q4_0.encode_q8_0", ("int64",) * 3), code_name("stored_values.widen_f16", ("int64",) * 4))


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """Where they lie."""
    compile_encoder("Q8_0")
    widen("F16", np.zeros(2, np.uint8), np.empty(1, np.float32))
    return [path for path in stored_code() if path.name in NEEDED]


def quantize(out: Path, cache: Path) -> tuple[list[str], bytes]:
    """Quantize in a process of its own: libraries of compilers that it imported, and the file."""
    command = [sys.executable, "-c", QUANTIZE, str(out)]
    env = os.environ | {"PYTHIA_GGUF_CACHE": str(cache)}
    imported = subprocess.check_output(command, cwd=ROOT, env=env, text=True, timeout=HANGS_S)
    return imported.split(), (out / "nano.Q8_0.gguf").read_bytes()


def test_a_run_whose_kernels_are_kept_imports_no_numba_and_others_do(kept: list[Path], tmp_path: Path):
    folder = tmp_path / kept[0].parent.name
    folder.mkdir()
    for path in kept:
        shutil.copy(path, folder)
    way_in = folder / NEEDED[1]
    whole = way_in.read_bytes()
    imported, file = quantize(tmp_path / "warm", tmp_path)
    assert imported == []
    way_in.write_bytes(whole[:-1])
    imported, again = quantize(tmp_path / "damaged", tmp_path)
    assert "numba" in imported
    assert again == file
    assert way_in.read_bytes() == whole
    way_in.unlink()
    imported, again = quantize(tmp_path / "missing", tmp_path)
    assert "numba" in imported
    assert again == file
    assert way_in.read_bytes() == whole
