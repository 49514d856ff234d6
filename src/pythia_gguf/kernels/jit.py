"""The one place that says how kernels are compiled.

Knows no kernel; where machine code is kept is in kernels/cache.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from pythia_gguf.kernels.cache import CodeCache


def kernel(function: Callable) -> Callable:
    """Compile on first call, without the interpreter lock, kept on disk; integer division by zero does not raise."""
    dispatcher = inlined(function)
    # Numba has no public way to give a function another cache; `cache=True` sets the same attribute.
    dispatcher._cache = CodeCache(function)
    return dispatcher


def inlined(function: Callable) -> Any:
    """A piece of a kernel: compiled into its callers, never called from Python."""
    return numba.njit(nogil=True, error_model="numpy")(function)


def is_compiled(compiled: Any, *arguments: np.ndarray) -> bool:
    """Whether a kernel has machine code for such arguments already, in this process or on disk."""
    types = tuple(map(numba.typeof, arguments))
    return types in compiled.overloads or compiled._cache.holds(types, compiled.targetctx)
