"""The sample as another model of its sizes, its names and its bytes in number: every weight a little different."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


def trained_further(source: Path, folder: Path) -> Path:
    """A copy of a Hugging Face folder of float16 weights, the last bits of each changed."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("heldout*"))
    weights = folder / "model.safetensors"
    data = np.fromfile(weights, np.uint8)
    data[8 + int(data[:8].view("<u8")[0]) :: 2] ^= 0x3F
    data.tofile(weights)
    return folder
