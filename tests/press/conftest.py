"""A small model and the folder that `quantize` makes of it, shared by the tests of what a folder tells."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from press import tiny
from press.truth import check_true
from pythia_gguf import quantize


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 2,000 weights, as a folder and as a file, and what `quantize` made of the folder."""
    home = tmp_path_factory.mktemp("true")
    tiny.write(home / "m", tiny.folder_files(width=32))
    (home / "g.F16.gguf").write_bytes(tiny.gguf_bytes(width=32))
    quantize(home / "m", home / "out", quants="Q4_0,Q4_K_M,Q4_K,Q8_0", keep_f16=True, threads=1)
    check_true(home / "out")
    return home


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder, links too."""
    shutil.copytree(made / "out", tmp_path / "out")
    (tmp_path / "out" / "m.Q4_K.gguf").unlink()
    os.link(tmp_path / "out" / "m.Q4_K_M.gguf", tmp_path / "out" / "m.Q4_K.gguf")
    return tmp_path / "out"
