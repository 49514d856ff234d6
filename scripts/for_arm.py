"""Compiles kernels for a 64-bit ARM CPU on this machine, whatever it is; nothing is run.

    python scripts/for_arm.py neoverse-n1 all KEY               all kernels, into the cache of PYTHIA_GGUF_CACHE
    python scripts/for_arm.py apple-m1 Q4_K:int8 attention_f16   the assembly of a product and of another op

Numba asks LLVM for the machine that it is on; here it gets another answer before the first kernel is imported. KEY is
what `kernels/target.py: target_key` says on such a CPU, or under an emulator, as Python writes it: the names of machine
code in the cache are made of it, and a program there finds them.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

TRIPLE = "aarch64-unknown-linux-gnu"


def compile_for(cpu: str) -> None:
    """Let Numba compile for a CPU, by LLVM's name, and never run what it has compiled."""
    os.environ |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = llvm.get_default_triple = lambda: TRIPLE

    from pythia_gguf.kernels import c_kernel, jit

    c_kernel.load_object = lambda code: 1  # in place of an address, which nobody calls
    compile_on_call = jit.kernel

    def kernel(function: Callable) -> Any:
        dispatcher = compile_on_call(function)
        dispatcher.__class__ = _only_compiling(type(dispatcher))
        return dispatcher

    jit.kernel = kernel


def _only_compiling(dispatcher_type: type) -> type:
    import numba

    def compile_only(dispatcher: Any, *arguments: Any) -> int:
        dispatcher.compile(tuple(map(numba.typeof, arguments)))
        return 0  # in place of what the kernel would return

    return type("OnlyCompiling", (dispatcher_type,), {"__call__": compile_only})


def compile_all(key: tuple[object, ...]) -> None:
    """Compile what `pythia warmup` and quantizing with an importance matrix need; key: of the CPU."""
    from pythia_gguf.cli import warmup
    from pythia_gguf.kernels import cache
    from pythia_gguf.kernels.compiling import compile_all
    from pythia_gguf.kernels.encode import ENCODABLE, encoder_jobs
    from pythia_gguf.progress import Silence

    cache.target_key = lambda: key
    # One thread: a second process would not know of the other CPU.
    compile_all(encoder_jobs(ENCODABLE, is_weighted=True), threads=1)
    warmup.compile_all_kernels(Silence(), threads=1)


def assembly(kernel: str) -> str:
    """The machine code of a product, as in "Q4_K:int8", or of another op of the engine."""
    from pythia_gguf.kernels import driver, matmul

    name, _, activations = kernel.partition(":")
    compiled = matmul._kernel(name, activations) if activations else driver._ALL_OPS[name]
    return compiled.compile_it().assembly()


if __name__ == "__main__":
    compile_for(sys.argv[1])
    if sys.argv[2] == "all":
        compile_all(ast.literal_eval(sys.argv[3]))
    else:
        for kernel in sys.argv[2:]:
            print(f"// {kernel}\n{assembly(kernel)}")
