"""F32, F16 and BF16: formats whose block is one weight. Rounding to them is not known here, only decoding."""

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


F32 = Format(name="F32", ggml_id=0, block_weights=1, block=np.dtype([("w", "<f4")]), decode_blocks=_decode_f32)
F16 = Format(name="F16", ggml_id=1, block_weights=1, block=np.dtype([("w", "<f2")]), decode_blocks=_decode_f16)
BF16 = Format(name="BF16", ggml_id=30, block_weights=1, block=np.dtype([("w", "<u2")]), decode_blocks=_decode_bf16)
