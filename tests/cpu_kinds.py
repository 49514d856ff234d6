"""Kinds of x86-64 CPU that kernels can be compiled for, in a process of its own, and those whose code runs here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
# LLVM's name -> features, which must be named too because kernels ask for features by name.
FEATURES = {
    "haswell": "+avx2,+fma,+f16c",
    "alderlake": "+avx2,+fma,+f16c,+avxvnni",
    "skylake-avx512": "+avx2,+fma,+f16c,+avx512f,+avx512bw",
    "x86-64": "",
}
# What /proc/cpuinfo calls the feature without which the code of a kind does not run; others are taken for granted.
_NEEDED = {"alderlake": "avx_vnni", "skylake-avx512": "avx512bw"}


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


RUNNABLE = tuple(cpu for cpu in FEATURES if IS_X86 and (cpu not in _NEEDED or _NEEDED[cpu] in _flags()))


# What NumPy must leave alone where there is no AVX-512; its own functions differ in last bits.
_NO_AVX512 = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR"}


def environment(cpu: str, **more: str) -> dict[str, str]:
    """The environment of a process that compiles for a kind of CPU."""
    numpy = {} if "avx512" in FEATURES[cpu] else _NO_AVX512
    return os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": FEATURES[cpu]} | numpy | more
