"""What kernels get from the processor that they are compiled for, in words.

kernels/cpu_features.py has the questions; kernels/dots.py, kernels/words.py and kernels/amx.py say which instructions
kernels use where the processor has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythia_gguf.kernels.amx import has_tiles
from pythia_gguf.kernels.cpu_features import (
    has_fused,
    has_half_conversion,
    has_sdot,
    is_arm,
    register_bytes,
    x86_feature,
)
from pythia_gguf.kernels.dots import dot_kind
from pythia_gguf.kernels.numba_private import cpu_context, target_of

# Of those that kernels make something of, the ones that people ask for.
_X86_FEATURES = ("avx", "avx2", "fma", "f16c", "gfni", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "amx-bf16")
_X86_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKind:
    """A processor as the compiler sees it.

    name      LLVM's: "sapphirerapids"
    features  LLVM's, of those that matter
    vectors   registers that kernels get: "AVX-512"
    products  how int8 activations are multiplied
    levels    how the 16 levels of IQ4 are looked up
    halves    how float16 becomes float32
    is_fused  whether a * b + c is rounded once; if not, logits differ a little from those of other processors
    has_amx   whether activations may be "bf16x3"
    """

    name: str
    features: tuple[str, ...]
    vectors: str
    products: str
    levels: str
    halves: str
    is_fused: bool
    has_amx: bool


def cpu_kind() -> CpuKind:
    """That of this process; NUMBA_CPU_NAME may name another."""
    context = cpu_context()
    features = _features(context)
    vectors = next((kind for name, kind in _X86_VECTORS.items() if name in features), "baseline")
    conversion = "FCVT" if is_arm(context) else "F16C"
    return CpuKind(
        name=str(target_of(context)[1]),
        features=features,
        vectors="NEON" if is_arm(context) else vectors,
        products=dot_kind(context),
        levels={0: "selects", 16: "TBL"}.get(register_bytes(context), "VPSHUFB"),
        halves=conversion if has_half_conversion(context) else "shifts",
        is_fused=has_fused(context),
        has_amx=has_tiles(),
    )


def _features(context: Any) -> tuple[str, ...]:
    if is_arm(context):
        return ("neon", "dotprod") if has_sdot(context) else ("neon",)
    return tuple(name for name in _X86_FEATURES if x86_feature(context, name))
