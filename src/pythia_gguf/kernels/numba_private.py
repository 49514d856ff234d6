"""Everything of Numba that we use and its documentation does not promise: `numba.core`, attributes of its objects.

tests/kernels/test_numba_private.py checks every name here. Numba is pinned to the releases that have passed it, and a
new release is tried there first. See docs/decisions/0025.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core.caching import NullCache
from numba.core.ccallback import _CFuncCompiler  # type: ignore[attr-defined]
from numba.core.cgutils import get_or_insert_function
from numba.core.compiler import Compiler, CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.np.arrayobj import populate_array

from pythia_gguf.kernels.object_code import ENTRY, NativeCode

__all__ = [
    "AbstractTemplate",
    "NullCache",
    "array_at",
    "c_code",
    "code_from_bytes",
    "code_to_bytes",
    "compiler_lock",
    "cpu_context",
    "data_of",
    "get_or_insert_function",
    "has_code",
    "holds",
    "infer_global",
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


def holds(dispatcher: Any, argument_types: tuple[types.Type, ...]) -> bool:
    """What the method `holds` of its cache says."""
    return dispatcher._cache.holds(argument_types)


class _Compiler(_CFuncCompiler):
    """Compiles a function to LLVM's language, without a way to call it from Python or C."""

    def _customize_flags(self, flags: Any) -> Any:
        flags = super()._customize_flags(flags)
        flags.no_cfunc_wrapper = True
        return flags


@global_compiler_lock
def c_code(function: Callable, signature: tuple[tuple[types.Type, ...], types.Type]) -> NativeCode:
    """Compile a function of int64 numbers, which returns nothing and never raises.

    signature  types of the arguments, and of the result
    """
    result = _Compiler(function, cpu_target, {"error_model": "numpy"}, {}, Compiler).compile(*signature)
    library, unique = result.library, f"{result.fndesc.llvm_func_name}.{ENTRY}"
    # 1. The entry point. Numba's own would report exceptions, for which it needs Numba and Python.
    library.add_ir_module(_entry_point(result.fndesc, unique))
    library.finalize()
    assert not library.has_dynamic_globals
    # 2. What is private and not called goes away, with everything that it refers to. Names of Numba count what this
    #    process has compiled; others make the same file the same bytes.
    module = library._final_module.clone()
    for i, defined in enumerate([v for v in (*module.functions, *module.global_variables) if not v.is_declaration]):
        is_entry = defined.name == unique
        defined.linkage = llvm.Linkage.external if is_entry else llvm.Linkage.internal
        defined.name = ENTRY if is_entry else f"{ENTRY}.{i}"
    passes, machine = llvm.create_new_module_pass_manager(), library.codegen._tm
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return NativeCode(
        object_file=machine.emit_object(module),
        address=lambda: library.get_pointer_to_function(unique),
        assembly=lambda: machine.emit_assembly(module),
    )


def _entry_point(inner: Any, name: str) -> ir.Module:
    """A module with one function: it takes int64 numbers and calls a function of Numba's."""
    calls, module = cpu_context().call_conv, ir.Module(name)
    kind = calls.get_function_type(inner.restype, inner.argtypes)
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(inner.argtypes)), name)
    builder = ir.IRBuilder(outer.append_basic_block())
    called = ir.Function(module, kind, inner.llvm_func_name)
    calls.call_function(builder, called, inner.restype, inner.argtypes, outer.args)
    builder.ret_void()
    return module


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


def cpu_context() -> Any:
    """The target context of the CPU that is compiled for."""
    return cpu_target.target_context


def target_of(target_context: Any) -> tuple[str, str, str]:
    """LLVM's triple, CPU and features, as in "+avx2,-avx512f"."""
    return target_context.codegen().magic_tuple()


def data_of(context: Any, builder: ir.IRBuilder, array: types.Array, value: ir.Value) -> ir.Value:
    """Where the data of an array begins, as LLVM's pointer to its elements."""
    return context.make_array(array)(context, builder, value).data


def array_at(context: Any, builder: ir.IRBuilder, array: types.Array, pointer: ir.Value, n: ir.Value) -> Any:
    """An array of one axis over n elements that lie where LLVM's pointer points to."""
    made = context.make_array(array)(context, builder)
    n_bytes = context.get_abi_sizeof(context.get_data_type(array.dtype))
    step = context.get_constant(types.intp, n_bytes)
    populate_array(made, pointer, (n,), (step,), step, None)
    return made._getvalue()
