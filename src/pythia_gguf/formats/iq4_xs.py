"""IQ4_XS: 256 weights in 8 groups of 32, each group with a signed 6-bit scale, levels of IQ4_NL.

byte 0   d         float16
byte 2   scales_h  16 bits: bits 2g and 2g+1 are the top bits of scale g
byte 4   scales_l  4 bytes: low 4 bits of scale g in the low (even g) or high (odd g) nibble of byte g/2
byte 8   qs        128 bytes: each 16 hold one group, low nibbles weights 0..15, high nibbles 16..31
weight = (d * (scale - 32)) * LEVELS[q]
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles
from pythia_gguf.formats.iq4_nl import LEVELS

BLOCK = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])


def unpack_scales(scales_l: np.ndarray, scales_h: np.ndarray) -> np.ndarray:
    """[B, 4] bytes and [B] words -> int32 [B, 8] in -32..31."""
    low = np.stack([scales_l & 15, scales_l >> 4], axis=2).reshape(-1, 8)
    high = (scales_h[:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    return (low | (high << 4)).astype(np.int32) - 32


def _decode(blocks: np.ndarray) -> np.ndarray:
    scales = unpack_scales(blocks["scales_l"], blocks["scales_h"]).astype(np.float32)
    scale_BG = halves(blocks["d"]) * scales
    levels_BGI = LEVELS[nibbles(blocks["qs"].reshape(-1, 8, 16))].astype(np.float32)
    return (scale_BG[:, :, None] * levels_BGI).reshape(-1, 256)


IQ4_XS = Format(name="IQ4_XS", ggml_id=23, block_weights=256, block=BLOCK, decode_blocks=_decode)
