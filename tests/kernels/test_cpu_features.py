"""What each kind of CPU answers to the questions of kernels, and what machine code it gets for the answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from cpu_kinds import FEATURES
from pythia_gguf.kernels.cpu_features import has_fused, has_half_conversion, has_sdot, register_bytes
from pythia_gguf.kernels.dots import AVX_VNNI, BYTE_PAIRS, SDOT, SMULL, VNNI, WORD_PAIRS, dot_kind
from pythia_gguf.kernels.driver import OPS, STAGE_OPS
from pythia_gguf.kernels.unpack import LAYOUTS

FOR_ARM = Path(__file__).parents[2] / "scripts" / "for_arm.py"
X86, LINUX, MAC = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "arm64-apple-darwin23.0"
# Triple, CPU, features -> fused, conversion of halves, bytes of a register, products. LLVM lists no features of a Mac.
ANSWERS = {
    (X86, "x86-64", FEATURES["x86-64"]): (False, False, 0, WORD_PAIRS),
    (X86, "haswell", FEATURES["haswell"]): (True, True, 32, BYTE_PAIRS),
    (X86, "alderlake", FEATURES["alderlake"]): (True, True, 32, AVX_VNNI),
    (X86, "skylake-avx512", FEATURES["skylake-avx512"]): (True, True, 64, BYTE_PAIRS),
    (X86, "znver4", "+avx512f,+avx512bw,+avx512vnni,+f16c,+avx2,-amx-bf16"): (True, True, 64, VNNI),
    (MAC, "apple-m1", ""): (True, True, 16, SDOT),
    (LINUX, "neoverse-n1", "-aes,-rand,-sha2,-sve"): (True, True, 16, SDOT),
    (LINUX, "neoverse-v1", "+neon,+sve"): (True, True, 16, SDOT),
    (LINUX, "cortex-a72", "+neon,+crc"): (True, True, 16, SMULL),
    (LINUX, "generic", ""): (True, True, 16, SMULL),
    (LINUX, "generic", "+dotprod"): (True, True, 16, SDOT),
}


class Target:
    """What the questions ask: the target context of Numba's compiler says a triple, a CPU and its features."""

    def __init__(self, *told: str) -> None:
        self.told = told

    def codegen(self) -> Target:
        return self

    def magic_tuple(self) -> tuple[str, ...]:
        return self.told


@pytest.mark.parametrize("cpu", ANSWERS)
def test_each_kind_of_cpu_answers_every_question(cpu: tuple[str, str, str]):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    context = Target(*cpu)
    answers = has_fused(context), has_half_conversion(context), register_bytes(context), dot_kind(context)
    assert answers == ANSWERS[cpu]
    assert has_sdot(context) == (dot_kind(context) == SDOT)


# Kernels, and the instructions that they get on any ARM CPU: sums rounded once, levels looked up, halves converted.
QUICK = {"IQ4_NL:int8": {"fmla", "tbl", "fcvtl", "scvtf"}, "scores_f16": {"fmla", "fcvtl", "fcvtn"}}
PRODUCTS = {f"{name}:{how}": {"fmla"} for how in ("int8", "float32") for name in LAYOUTS}
PRODUCTS |= {f"{name}:float32": {"fmla"} for name in ("F32", "F16", "BF16")}
# The ops that add up products; a look inside divides attention into stages.
SUMS = {"attention_f16", "attention_f32", "scores_f16", "scores_f32", "mix_f16", "mix_f32"}
ALL = PRODUCTS | {name: {"fmla"} if name in SUMS else set() for name in (*OPS, *STAGE_OPS)} | QUICK
CASES = [
    ("neoverse-n1", QUICK),
    *(pytest.param(cpu, ALL, marks=pytest.mark.campaign) for cpu in ("apple-m1", "neoverse-v1", "cortex-a72")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "expected"), CASES)
def test_kernels_of_the_engine_have_the_instructions_of_arm(cpu: str, expected: dict[str, set[str]], tmp_path: Path):
    """A kernel that asks LLVM for something of x86 ends the compiler, so what is compiled has nothing of it."""
    found = machine_code(cpu, list(expected), tmp_path)
    assert {name: words - found[name] for name, words in expected.items()} == {name: set() for name in expected}
    product = "smull" if cpu == "cortex-a72" else "sdot"
    assert all(product in found[name] for name in expected if name.endswith(":int8"))


def machine_code(cpu: str, kernels: list[str], cache: Path) -> dict[str, set[str]]:
    """Kernel -> its instructions on an ARM CPU.

    cache  a folder of its own: code that is loaded shows no instructions
    """
    env = os.environ | {"PYTHIA_GGUF_CACHE": str(cache)}
    command = [sys.executable, str(FOR_ARM), cpu, *kernels]
    text = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    parts = re.split(r"^// (\S+)$", text, flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"^\t([a-z]\w*)", code, re.MULTILINE))
        for name, code in zip(parts[::2], parts[1::2], strict=True)
    }
