"""What machine code depends on beside the sources of the kernels, found out without Numba.

Numba chooses the CPU and its own switches by the same facts, so machine code can be named without asking it.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

# Variables of Numba that change no machine code; all others may.
_WITHOUT_EFFECT = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY")
# Numba takes switches from this file of the working directory, too.
_SWITCHES = Path(".numba_config.yaml")


@lru_cache
def target_key() -> tuple[object, ...]:
    """The platform, this CPU and its features as LLVM names them, and what the user has told Numba."""
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM does not know the features of some CPUs
        features = ""
    told = sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in _WITHOUT_EFFECT)
    switches = b""
    with contextlib.suppress(OSError):
        switches = _SWITCHES.read_bytes()
    return llvm.get_default_triple(), llvm.get_host_cpu_name(), features, *told, switches


def compiler_version() -> bytes:
    """What tells this Numba and its LLVM from others."""
    found = find_spec("numba")
    origin = found and found.origin or ""
    try:
        # Importing Numba takes a hundred times as long, and asking importlib.metadata ten times.
        numba_version = Path(origin).with_name("_version.py").read_bytes()
    except (OSError, ValueError):  # packed into an archive
        import numba

        numba_version = numba.__version__.encode()
    return numba_version + llvmlite.__version__.encode()
