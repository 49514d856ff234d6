"""The sample model as all files of the menu, made once for all tests of a run, and its held-out text."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest

from pythia_gguf import quantize
from pythia_gguf.engine.model import load
from pythia_gguf.errors import UsageError
from pythia_gguf.kernels.matmul import known_activations

ROOT = Path(__file__).parents[2]
NANO = ROOT / "examples" / "nano"
HELDOUT = NANO / "heldout.txt"
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def nano_files() -> dict[str, Path]:
    """Quant -> file, for the 16 distinct ones and F16. There is no config.json beside them: "auto" is erf."""
    _KEPT.append(tempfile.TemporaryDirectory())
    result = quantize(NANO, _KEPT[0].name, keep_f16=True)
    return {f.quant: f.path for f in result.files if f.alias_of is None}


def is_refused(path: Path, activations: str) -> bool:
    """Whether this processor has no products with such activations; what `load` says then is checked."""
    if activations in known_activations():
        return False
    assert activations == "bf16x3"
    with pytest.raises(UsageError, match="bf16x3' needs Linux on a processor with AMX; float32 runs anywhere"):
        load(path, activations=activations)
    return True
