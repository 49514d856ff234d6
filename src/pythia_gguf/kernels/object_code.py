"""Machine code as object files, which LLVM alone loads: one linker for the process, a library for each file."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm

# What every object file calls the function that it is there for.
ENTRY = "pythia_gguf_kernel"


class NativeCode(NamedTuple):
    """What a compiler makes of a kernel.

    object_file  calls the entry point ENTRY, and nothing else can be reached from outside
    address      gives that of the entry point in the compiler's own memory
    assembly     gives the instructions as text
    """

    object_file: bytes
    address: Callable[[], int]
    assembly: Callable[[], str]


class LinkError(Exception):
    """An object file that cannot be loaded: it is no object file, or needs a function that is not there."""


# A thread holds it while it loads. `os.fork` waits for it, else it would stay locked in the child.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def load_object(code: bytes) -> int:
    """The address of ENTRY in an object file, which stays in memory as long as the process.

    Raises LinkError
    """
    with _LOCK:
        return _linker().load(code)


@cache
def _linker() -> _Linker:
    return _Linker()


class _Linker:
    """LLVM's linker, and what it has loaded."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        # JITLink lays the parts of a file side by side. The older linker may lay them so far apart that code of 64-bit
        # ARM cannot reach its constants; on Windows it is the one that is proven.
        self._jit = llvm.create_lljit_compiler(use_jit_link=sys.platform != "win32", suppress_errors=True)
        self._names = map("kernel {}".format, itertools.count())  # a name counts as used when linking has failed, too
        self._libraries: list[Any] = []  # what is no longer referred to would be unloaded

    def load(self, code: bytes) -> int:
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(ENTRY)
        try:
            library = builder.link(self._jit, next(self._names))
        except RuntimeError as e:
            raise LinkError(str(e)) from e
        self._libraries.append(library)
        return int(library[ENTRY])
