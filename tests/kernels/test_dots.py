"""Dot products of bytes: exact with the largest bytes on every kind of CPU, by the instructions that it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from cpu_kinds import FEATURES, IS_X86, RUNNABLE, environment
from kernels.dots_elsewhere import wrong_sums
from pythia_gguf.kernels.dots import dots_of
from pythia_gguf.kernels.simd import store
from pythia_gguf.kernels.unpack import LAYOUTS


@pytest.mark.slow
@pytest.mark.parametrize("format_name", LAYOUTS)
def test_largest_code_of_a_layout_is_the_largest_that_bytes_can_mean(format_name: str):
    """What the bounds of sums in 16 bits stand on: bytes of ones reach it, no bytes go beyond."""
    layout = LAYOUTS[format_name]
    codes_of, n_subs = layout.codes, layout.columns // 32

    @njit
    def codes(data, out):
        for sub in range(n_subs):
            c0, c1, c2, c3, c4, c5, c6, c7 = codes_of(data, 0, sub)
            i = sub * 128
            store(out, i, c0)
            store(out, i + 16, c1)
            store(out, i + 32, c2)
            store(out, i + 48, c3)
            store(out, i + 64, c4)
            store(out, i + 80, c5)
            store(out, i + 96, c6)
            store(out, i + 112, c7)

    anything = np.random.default_rng(0).integers(0, 256, (64, layout.n_bytes), np.uint8)
    found = []
    for data in (np.full(layout.n_bytes, 255, np.uint8), *anything):
        out = np.empty(n_subs * 128, np.int32)
        codes(data, out)
        found.append(int(out.view(np.uint8).max()))
    assert found[0] == layout.most
    assert max(found) == layout.most


@pytest.mark.parametrize("format_name", ["Q4_K", "Q8_0"])
def test_sums_of_the_largest_bytes_are_exact_here(format_name: str):
    made = dots_of(LAYOUTS[format_name].most, LAYOUTS[format_name].offset)
    assert wrong_sums(format_name, made) == (0, 0)


# Formats that cannot have all four vectors of 16 columns added as int16, for few and for many tokens.
SHARP = {"few": ("Q6_K", "Q8_0", "IQ4_XS"), "many": ("Q5_K", "Q6_K", "Q8_0", "IQ4_XS")}


@pytest.mark.slow
@pytest.mark.parametrize("cpu", RUNNABLE)
def test_sums_of_the_largest_bytes_are_exact_on_every_kind_of_cpu(cpu: str):
    """And where AVX2 would add one vector more as int16, it would saturate: the bounds of kernels/dots.py are sharp."""
    one_each = {(layout.most, layout.offset): name for name, layout in LAYOUTS.items()}  # the last of each
    has_pairs = cpu in ("haswell", "skylake-avx512")
    names = sorted(one_each.values()) if has_pairs else ["Q4_K", "Q8_0"]
    command = [sys.executable, str(Path(__file__).with_name("dots_elsewhere.py")), ",".join(names)]
    run = subprocess.run(command, env=environment(cpu), capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert [line for line in lines if not line.startswith("too many")] == [f"{name} 0 0" for name in names]
    beyond = [line.split() for line in lines if line.startswith("too many")]
    assert all(n_wrong != "0" for *_, n_wrong in beyond)
    sharp = {(few, name) for few, names in SHARP.items() for name in names}
    assert {(few, name) for _, _, name, few, _ in beyond} == (sharp if has_pairs else set())


# Compiles the int8 product of a format and prints which of the words given are in its machine code.
INSTRUCTIONS = """
import sys
from pythia_gguf.kernels.matmul import _kernel
code = _kernel(sys.argv[1], "int8").compile_it().assembly()
print(*[word for word in sys.argv[2:] if word in code])
"""
WORDS = ("vpdpbusd", "vpmaddubsw", "vpsignb", "vpshufb", "vpblendvb", "zmm")
HAS = {
    ("haswell", "IQ4_NL"): ["vpmaddubsw", "vpsignb", "vpshufb"],
    ("alderlake", "IQ4_NL"): ["vpdpbusd", "vpshufb"],
}


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "format_name"), HAS if IS_X86 else ())
def test_products_have_the_instructions_of_their_cpu_and_no_others(cpu: str, format_name: str):
    """AVX2 has vpmaddubsw, a look-up in one instruction and no tree of choices; vpdpbusd is where AVX-VNNI is."""
    command = [sys.executable, "-c", INSTRUCTIONS, format_name, *WORDS]
    run = subprocess.run(command, env=environment(cpu), capture_output=True, text=True, check=True)
    assert ("avxvnni" in FEATURES[cpu]) == ("vpdpbusd" in run.stdout)
    assert run.stdout.split() == HAS[cpu, format_name]
