"""Everything of Numba that we use and its documentation does not promise: `numba.core`, attributes of its objects.

tests/kernels/test_numba_private.py checks every name here. Numba is pinned to the releases that have passed it, and a
new release is tried there first. See docs/decisions/0025.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.cgutils import get_or_insert_function
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

__all__ = [
    "AbstractTemplate",
    "NullCache",
    "c_function",
    "code_from_bytes",
    "code_to_bytes",
    "compiler_lock",
    "context_of",
    "cpu_context",
    "data_of",
    "get_or_insert_function",
    "has_code",
    "infer_global",
    "is_kept",
    "signature",
    "target_of",
    "use_cache",
]


def use_cache(dispatcher: Any, cache: NullCache) -> None:
    """Give a function of `njit` another cache; `cache=True` sets the same attribute."""
    dispatcher._cache = cache


def has_code(dispatcher: Any, argument_types: tuple[types.Type, ...]) -> bool:
    """Whether it was compiled for such arguments, or loaded, in this process."""
    return argument_types in dispatcher.overloads


def is_kept(dispatcher: Any, argument_types: tuple[types.Type, ...]) -> bool:
    """What the method `holds` of its cache says."""
    return dispatcher._cache.holds(argument_types, dispatcher.targetctx)


def c_function(function: Callable, signature: tuple[tuple[types.Type, ...], types.Type], cache: NullCache) -> Any:
    """Compile a function with a C entry point, whose place is the attribute `address`, or take it from a cache."""
    compiled = CFunc(function, signature, locals={}, options={"error_model": "numpy"})
    compiled._cache = cache  # type: ignore[attr-defined]
    compiled.compile()
    return compiled


def code_to_bytes(result: Any) -> bytes:
    """The result of a compilation, for another process.

    result  what the method `save_overload` of a cache gets
    """
    # Either would take addresses of this process into another one.
    assert not result.lifted
    assert not result.library.has_dynamic_globals
    return dumps(result._reduce())


def code_from_bytes(data: bytes, target_context: Any) -> CompileResult:
    """What `code_to_bytes` was given."""
    target_context.refresh()
    return CompileResult._rebuild(target_context, *pickle.loads(data))


def compiler_lock() -> tuple[Callable[[], None], Callable[[], None]]:
    """Acquire and release the lock that a thread holds while it compiles; it may take it again."""
    return global_compiler_lock.acquire, global_compiler_lock.release


def context_of(result: Any) -> Any:
    """The target context that the result of a compilation is for."""
    return result.target_context


def cpu_context() -> Any:
    """The target context of the CPU that is compiled for."""
    return cpu_target.target_context


def target_of(target_context: Any) -> tuple[str, str, str]:
    """LLVM's triple, CPU and features, as in "+avx2,-avx512f"."""
    return target_context.codegen().magic_tuple()


def data_of(context: Any, builder: ir.IRBuilder, array: types.Array, value: ir.Value) -> ir.Value:
    """Where the data of an array begins, as LLVM's pointer to its elements."""
    return context.make_array(array)(context, builder, value).data
