"""The sample model as all files of the menu, made once for all tests of a run, and its held-out text."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from pythia_gguf import quantize

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
