"""The one place that says how kernels are compiled; kernels/cache.py says where machine code is kept.

Other files of kernels/ use `kernel` for what Python calls, `inlined` for a piece of a kernel, and `c_kernel` for a
kernel that other kernels reach by its address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numba
import numpy as np

from pythia_gguf.kernels.cache import CodeCache
from pythia_gguf.kernels.numba_private import (
    c_function,
    compiler_lock,
    cpu_context,
    has_code,
    is_kept,
    use_cache,
)

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_INLINED = _OPTIONS | {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable) -> Callable:
    """Compile on first call, without the interpreter lock, kept on disk; integer division by zero does not raise."""
    _let_forks_wait()
    dispatcher = numba.njit(**_OPTIONS)(function)
    use_cache(dispatcher, CodeCache(function))
    return dispatcher


@cache
def _let_forks_wait() -> None:
    """Make `os.fork` wait until no other thread compiles, else the compiler's lock would stay locked in the child."""
    if hasattr(os, "register_at_fork"):
        acquire, release = compiler_lock()
        os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)


def inlined(function: Callable) -> Any:
    """A piece of a kernel: compiled into its callers, never called from Python.

    Inlining is forced: a function that stays one has a symbol made of its name and a counter of the process, so
    closures of one name that were compiled in different processes would be taken for each other when their callers are
    loaded. Wrappers for calls from Python would take a fifth of the time that a kernel takes to compile.
    """
    return numba.njit(**_INLINED)(function)


def is_compiled(compiled: Any, *arguments: np.ndarray | np.floating | int) -> bool:
    """Whether a kernel has machine code for such arguments already, in this process or on disk."""
    types = tuple(map(numba.typeof, arguments))
    return has_code(compiled, types) or is_kept(compiled, types)


class CKernel:
    """A kernel with a C entry point: it takes int64 numbers (addresses and counts), returns nothing, is kept on disk.

    Other kernels reach it through its address, so they are compiled once, whichever kernels they call.
    """

    def __init__(self, function: Callable, n_arguments: int) -> None:
        """Take the Python function of the kernel; nothing is compiled yet."""
        self._function = function
        self._signature = ((numba.int64,) * n_arguments, numba.void)

    @cached_property
    def address(self) -> int:
        """The address of its machine code, which is compiled or taken from disk when it is first asked for."""
        return self._compiled.address

    @property
    def is_kept(self) -> bool:
        """Whether there is machine code for it already, in this process or on disk."""
        if "_compiled" in self.__dict__:
            return True
        return CodeCache(self._function).holds(self._signature[0], cpu_context())

    @cached_property
    def _compiled(self) -> Any:
        return c_function(self._function, self._signature, CodeCache(self._function))


def c_kernel(n_arguments: int) -> Callable[[Callable], CKernel]:
    """Decorator: a function of `n_arguments` int64 numbers becomes a CKernel."""
    return lambda function: CKernel(function, n_arguments)
