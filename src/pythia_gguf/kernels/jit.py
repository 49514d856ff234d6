"""The one place that says how kernels are compiled and where the machine code is kept.

Knows no kernel. Numba's cache notices an edit only in the file of the function it caches, not in what that function
calls. So the folder's name carries a hash of all kernel sources, Numba's version and the switch that changes generated
code: an edited kernel never meets code of another one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba

# Kernels bake in tables of formats/.
_FOLDERS = (Path(__file__).parent, Path(__file__).parent.parent / "formats")
config: Any = numba.config


def cache_root() -> Path:
    """Where this user's machine keeps caches: PYTHIA_GGUF_CACHE, else the platform's place."""
    if own := os.environ.get("PYTHIA_GGUF_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pythia-gguf"


@lru_cache
def cache_folder() -> Path:
    """The folder for machine code of exactly these sources."""
    digest = hashlib.sha256(f"{numba.__version__} boundscheck={config.BOUNDSCHECK}".encode())
    for folder in _FOLDERS:
        for source in sorted(folder.glob("*.py")):
            digest.update(source.read_bytes())
    return cache_root() / f"kernels-{digest.hexdigest()[:16]}"


def kernel(function: Callable) -> Callable:
    """Compile on first call, without the interpreter lock, cached on disk; integer division by zero does not raise."""
    saved = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())  # read when the function is decorated; other users of Numba keep theirs
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = saved


def inlined(function: Callable) -> Callable:
    """A piece of a kernel: compiled into its callers, never called from Python."""
    return numba.njit(nogil=True, error_model="numpy")(function)
