"""What the CPU that kernels are compiled for can do: each question is answered for x86-64 and for 64-bit ARM.

x86's features have names that LLVM lists for any CPU. On ARM the list is short or empty (a Mac's is), and the name of
the CPU implies what is missing from it, so LLVM is asked by letting it compile a line for that CPU.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

from pythia_gguf.kernels.numba_private import target_of

# A sum of products of signed bytes, which is `sdot` where a CPU has it; several other instructions elsewhere.
_DOT_PRODUCT = """
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i32 @dot(<16 x i8> %a, <16 x i8> %b) {
  %x = sext <16 x i8> %a to <16 x i32>
  %y = sext <16 x i8> %b to <16 x i32>
  %products = mul <16 x i32> %x, %y
  %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %products)
  ret i32 %sum
}
"""


def x86_feature(context: Any, name: str) -> bool:
    """Whether this is an x86 CPU with a feature, by LLVM's name; for what other CPUs have nothing alike for."""
    return not is_arm(context) and f"+{name}" in target_of(context)[2].split(",")


def is_arm(context: Any) -> bool:
    """Whether this is a 64-bit ARM CPU. All of them have NEON: registers of 16 bytes."""
    return target_of(context)[0].startswith(("aarch64", "arm64"))


def has_fused(context: Any) -> bool:
    """Whether a * b + c can be rounded once."""
    return is_arm(context) or x86_feature(context, "fma") or x86_feature(context, "avx512f")


def has_half_conversion(context: Any) -> bool:
    """Whether float16 is turned into float32 and back by an instruction."""
    return is_arm(context) or x86_feature(context, "f16c")


def register_bytes(context: Any) -> int:
    """Size of the registers whose bytes are multiplied and looked up: 64, 32, 16, or 0 on x86 without AVX2."""
    if is_arm(context):
        return 16
    if x86_feature(context, "avx512bw"):
        return 64
    return 32 if x86_feature(context, "avx2") else 0


def has_wide_registers(context: Any) -> bool:
    """Whether 32 vectors fit into the registers (AVX-512: 2 KiB); elsewhere 8 do (AVX2 and NEON: 512 bytes)."""
    return x86_feature(context, "avx512f")


def has_sdot(context: Any) -> bool:
    """Whether this is an ARM CPU with an instruction for four products of signed bytes and their sum."""
    return is_arm(context) and "\tsdot" in _machine_code(_DOT_PRODUCT, *target_of(context))


@cache
def _machine_code(source: str, triple: str, cpu: str, features: str) -> str:
    """The assembly that LLVM makes of its language for a CPU."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    return machine.emit_assembly(llvm.parse_assembly(source))
