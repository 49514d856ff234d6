"""What kernels get from the processor that they are compiled for, in words.

kernels/dots.py, kernels/words.py and kernels/amx.py say which instructions they use where the processor has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pythia_gguf.kernels.amx import has_tiles
from pythia_gguf.kernels.dots import dot_kind
from pythia_gguf.kernels.numba_private import cpu_context, target_of
from pythia_gguf.kernels.simd import has_feature

# Of those that kernels make something of, the ones that people ask for.
_FEATURES = ("avx", "avx2", "fma", "f16c", "gfni", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "amx-bf16", "neon")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKind:
    """A processor as the compiler sees it.

    name      LLVM's: "sapphirerapids"
    features  LLVM's, of those that matter
    vectors   registers that kernels get: "AVX-512"
    products  how int8 activations are multiplied
    has_amx   whether activations may be "bf16x3"
    """

    name: str
    features: tuple[str, ...]
    vectors: str
    products: str
    has_amx: bool


def cpu_kind() -> CpuKind:
    """That of this process; NUMBA_CPU_NAME may name another."""
    context = cpu_context()
    features = tuple(name for name in _FEATURES if has_feature(context, name))
    kinds = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "neon": "NEON"}
    return CpuKind(
        name=str(target_of(context)[1]),
        features=features,
        vectors=next((kind for name, kind in kinds.items() if name in features), "baseline"),
        products=dot_kind(context),
        has_amx=has_tiles(),
    )
