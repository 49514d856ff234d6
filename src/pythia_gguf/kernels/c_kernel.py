"""Kernels with a C entry point: where their machine code is kept, neither Numba nor their own module is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable

from pythia_gguf.kernels.cache import code_name, fix_version, is_kept, keep_code, kept_code
from pythia_gguf.kernels.object_code import LinkError, NativeCode, load_object


class CKernel:
    """A kernel that takes int64 numbers (addresses and counts), returns nothing, and is kept on disk.

    Other kernels reach it through its address, so they are compiled once, whichever kernels they call.
    """

    def __init__(self, name: str, n_arguments: int, compile_it: Callable[[], NativeCode]) -> None:
        """Name the kernel; nothing is compiled yet.

        name        for its file: "q4_k.encode_q4_k"
        compile_it  compiles it
        """
        self._name, self._n_arguments = name, n_arguments
        self.compile_it = compile_it
        self._run: Callable[..., None] | None = None
        self._address = 0
        fix_version()

    @property
    def address(self) -> int:
        """The address of its machine code, which is compiled or taken from disk when it is first asked for."""
        # Not `cached_property`, whose lock would stay locked in a child that another thread forks meanwhile. Two
        # threads that come here at once may both do the work.
        self._address = self._address or self._kept_address() or self._compiled_address()
        return self._address

    def load(self) -> None:
        """Compile it or take it from disk now, so that the first call starts at once."""
        self._address = self.address

    @property
    def run(self) -> Callable[..., None]:
        """The kernel as a function, which runs without the interpreter lock.

        It believes its arguments: call it where buffers have been checked.
        """
        if self._run is None:
            self._run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * self._n_arguments)(self.address)
        return self._run

    @property
    def is_kept(self) -> bool:
        """Whether there is machine code for it already, in this process or on disk."""
        return bool(self._address) or is_kept(self._file)

    def _kept_address(self) -> int:
        """0 when no folder has code that can be loaded."""
        for code in kept_code(self._file):
            with contextlib.suppress(LinkError):
                return load_object(code)
        return 0

    def _compiled_address(self) -> int:
        code = self.compile_it()
        try:
            address = load_object(code.object_file)
        except LinkError:
            # No platform is known where LLVM cannot load what it has made; there, kernels are compiled in every run.
            return code.address()
        keep_code(self._file, code.object_file)
        return address

    @property
    def _file(self) -> str:
        return code_name(self._name, ("int64",) * self._n_arguments)


def kernel_of(module: str, name: str, n_arguments: int) -> CKernel:
    """A kernel of another file of this folder, which is imported when the kernel must be compiled."""

    def compile_it() -> NativeCode:
        kernel: CKernel = getattr(importlib.import_module(f"pythia_gguf.kernels.{module}"), name)
        return kernel.compile_it()

    return CKernel(f"{module}.{name}", n_arguments, compile_it)
