"""Q5_0: 32 weights, one scale, 5 bits each, zero in the middle.

byte 0   d   float16
byte 2   qh  32 bits: bit j is the top bit of weight j
byte 6   qs  16 bytes: low nibbles weights 0..15, high nibbles 16..31
weight = (q - 16) * d
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles

BLOCK = np.dtype([("d", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])


def fifth_bits(qh: np.ndarray) -> np.ndarray:
    """Bit j of each 32-bit word as 16 or 0: [B] -> uint8 [B, 32]."""
    return (((qh[:, None] >> np.arange(32, dtype=np.uint32)) & 1) << 4).astype(np.uint8)


def _decode(blocks: np.ndarray) -> np.ndarray:
    q = (nibbles(blocks["qs"]) | fifth_bits(blocks["qh"])).astype(np.int32)
    return (q - 16).astype(np.float32) * halves(blocks["d"])


Q5_0 = Format(name="Q5_0", ggml_id=6, block_weights=32, block=BLOCK, decode_blocks=_decode)
