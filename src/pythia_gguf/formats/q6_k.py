"""Q6_K: 256 weights in 16 groups of 16, each group with a signed 8-bit scale, 6 bits a weight.

byte 0    ql      128 bytes; of each 64 (one half of the block, 128 weights w):
                  byte l       low nibble: low 4 bits of w[l];       high nibble: of w[l + 64]     (l < 32)
                  byte l + 32  low nibble: low 4 bits of w[l + 32];  high nibble: of w[l + 96]
byte 128  qh      64 bytes; of each 32, bits 0-1, 2-3, 4-5, 6-7 of byte l: top 2 bits of w[l], w[l+32], w[l+64], w[l+96]
byte 192  scales  16 signed bytes
byte 208  d       float16
weight = (d * scale) * (q - 32)
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles, pairs

BLOCK = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])


def _decode(blocks: np.ndarray) -> np.ndarray:
    low = nibbles(blocks["ql"].reshape(-1, 2, 64)).reshape(-1, 256)
    q = (low | (pairs(blocks["qh"]) << 4)).astype(np.int32) - 32
    scale_BG = halves(blocks["d"]) * blocks["scales"].astype(np.float32)
    return (scale_BG[:, :, None] * q.astype(np.float32).reshape(-1, 16, 16)).reshape(-1, 256)


Q6_K = Format(name="Q6_K", ggml_id=14, block_weights=256, block=BLOCK, decode_blocks=_decode)
