"""F32, F16 and BF16: formats whose block is one weight.

NumPy has no bfloat16, so this file also rounds to it.
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format


def _decode_f32(blocks: np.ndarray) -> np.ndarray:
    return blocks["w"].astype(np.float32)


def _decode_f16(blocks: np.ndarray) -> np.ndarray:
    return blocks["w"].astype(np.float32)


def _decode_bf16(blocks: np.ndarray) -> np.ndarray:
    # A bfloat16 is the upper half of a float32.
    return (blocks["w"].astype(np.uint32) << 16).view(np.float32)


def round_bf16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to what a bfloat16 holds, nearest even, as float32; what is too large becomes infinity.

    Source llama.cpp 0c1e57098 gguf-py/gguf/quants.py, class BF16.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def bf16_bits(rounded: np.ndarray) -> np.ndarray:
    """The bit patterns of what `round_bf16` gave, as files store them."""
    return (rounded.view(np.uint32) >> 16).astype(BF16.block["w"])


F32 = Format(name="F32", ggml_id=0, block_weights=1, block=np.dtype([("w", "<f4")]), decode_blocks=_decode_f32)
F16 = Format(name="F16", ggml_id=1, block_weights=1, block=np.dtype([("w", "<f2")]), decode_blocks=_decode_f16)
BF16 = Format(name="BF16", ggml_id=30, block_weights=1, block=np.dtype([("w", "<u2")]), decode_blocks=_decode_bf16)
