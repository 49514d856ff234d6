"""Q2_K: 256 weights in 16 groups of 16, each group with a 4-bit scale and a 4-bit minimum, 2 bits a weight.

byte 0   scales  16 bytes: low nibble scale, high nibble minimum of group g
byte 16  qs      64 bytes: see `format.pairs`
byte 80  d       float16, unit of the scales
byte 82  dmin    float16, unit of the minima
weight = (d * scale) * q - dmin * minimum
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, pairs

BLOCK = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])


def _decode(blocks: np.ndarray) -> np.ndarray:
    scale_BG = halves(blocks["d"]) * (blocks["scales"] & 15).astype(np.float32)
    min_BG = halves(blocks["dmin"]) * (blocks["scales"] >> 4).astype(np.float32)
    q_BGI = pairs(blocks["qs"]).astype(np.float32).reshape(-1, 16, 16)
    return (scale_BG[:, :, None] * q_BGI - min_BG[:, :, None]).reshape(-1, 256)


Q2_K = Format(name="Q2_K", ggml_id=10, block_weights=256, block=BLOCK, decode_blocks=_decode)
