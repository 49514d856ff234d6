"""The one place that says how kernels are compiled; kernels/cache.py says where machine code is kept.

Other files of kernels/ use `c_kernel` for a kernel that is reached by its address, `inlined` for a piece of a kernel,
and `kernel` for what Python calls with arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
import numpy as np

from pythia_gguf.kernels.c_kernel import CKernel
from pythia_gguf.kernels.cache import code_name, fix_version, is_kept, keep_code, kept_code
from pythia_gguf.kernels.numba_private import (
    NullCache,
    c_code,
    code_from_bytes,
    code_to_bytes,
    compiler_lock,
    has_code,
    holds,
    use_cache,
)
from pythia_gguf.kernels.object_code import NativeCode

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

    Inlining is forced: in a `kernel`, a function that stays one has a symbol made of its name and a counter of the
    process, so closures of one name that were compiled in different processes would be taken for each other when their
    callers are loaded. Wrappers for calls from Python would take a fifth of the time that a kernel takes to compile.
    """
    return numba.njit(**_INLINED)(function)


def is_compiled(compiled: Any, *arguments: np.ndarray | np.floating | int) -> bool:
    """Whether a kernel has machine code for such arguments already, in this process or on disk."""
    types = tuple(map(numba.typeof, arguments))
    return has_code(compiled, types) or holds(compiled, types)


class CodeCache(NullCache):
    """The machine code of one kernel, as a dispatcher of Numba asks for it.

    A file that is missing, cut short or changed counts as not there: the kernel is compiled, and the file replaced.
    """

    def __init__(self, function: Callable) -> None:
        """Take the Python function of a kernel; writes no file."""
        self._kernel = _name_of(function)
        fix_version()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Machine code for the argument types `sig`, or None."""
        pickled = next(kept_code(self._file(sig)), None)
        return None if pickled is None else code_from_bytes(pickled, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep machine code."""
        keep_code(self._file(sig), code_to_bytes(data))

    def holds(self, sig: Any) -> bool:
        """Whether there is a file for the argument types `sig`; it is not read."""
        return is_kept(self._file(sig))

    def _file(self, sig: Any) -> str:
        return code_name(self._kernel, tuple(map(str, sig)))


def c_kernel(n_arguments: int) -> Callable[[Callable], CKernel]:
    """Decorator: a function of `n_arguments` int64 numbers becomes a CKernel."""
    signature = (numba.int64,) * n_arguments, numba.void

    def made(function: Callable) -> CKernel:
        return CKernel(_name_of(function), n_arguments, partial(_c_code, function, signature))

    return made


def _c_code(function: Callable, signature: Any) -> NativeCode:
    _let_forks_wait()
    return c_code(function, signature)


def _name_of(function: Callable) -> str:
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
