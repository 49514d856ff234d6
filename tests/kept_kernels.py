"""Compiled kernels of this run, copied into another cache: a test of compiling then has little to compile."""

from __future__ import annotations

import shutil
from pathlib import Path

from pythia_gguf.kernels.cache import stored_code


def copy_kernels(cache: Path, *, without: str) -> None:
    """All that are kept for this source, but not those of one function: "stored_values.widen_f16"."""
    kept = stored_code()
    assert any(path.name.startswith(f"{without}-") for path in kept), without
    for path in kept:
        folder = cache / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        if not path.name.startswith(f"{without}-"):
            shutil.copy2(path, folder)
