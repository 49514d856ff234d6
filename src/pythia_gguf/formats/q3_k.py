"""Q3_K: 256 weights in 16 groups of 16, each group with a signed 6-bit scale, 3 bits a weight.

byte 0    hmask   32 bytes: bit k of byte i is the top bit of weight 32k + i
byte 32   qs      64 bytes, the two lower bits: see `format.pairs`
byte 96   scales  12 bytes, 6-bit scales of groups 0..15, stored + 32:
                  bytes 0..7   low nibble: low 4 bits of scale 0..7;  high nibble: of scale 8..15
                  bytes 8..11  bits 0-1, 2-3, 4-5, 6-7 of byte 8+j: top 2 bits of scale j, 4+j, 8+j, 12+j
byte 108  d       float16
weight = (d * (scale - 32)) * (q - 4)
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, high_bits, nibbles, pairs

BLOCK = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])


def unpack_scales(packed: np.ndarray) -> np.ndarray:
    """[B, 12] bytes -> int32 [B, 16] in -32..31."""
    low = nibbles(packed[:, :8])
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 4, 1)
    high = ((packed[:, None, 8:] >> shifts) & 3).reshape(-1, 16)
    return (low | (high << 4)).astype(np.int32) - 32


def _decode(blocks: np.ndarray) -> np.ndarray:
    scale_BG = halves(blocks["d"]) * unpack_scales(blocks["scales"]).astype(np.float32)
    q = (pairs(blocks["qs"]) | (high_bits(blocks["hmask"]) << 2)).astype(np.int32) - 4
    return (scale_BG[:, :, None] * q.astype(np.float32).reshape(-1, 16, 16)).reshape(-1, 256)


Q3_K = Format(name="Q3_K", ggml_id=11, block_weights=256, block=BLOCK, decode_blocks=_decode)
