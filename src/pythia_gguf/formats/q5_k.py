"""Q5_K: Q4_K with a fifth bit for each weight.

byte 0   d       float16, unit of the scales
byte 2   dmin    float16, unit of the minima
byte 4   scales  12 bytes, packed as in q4_k.py
byte 16  qh      32 bytes: bit k of byte i is the top bit of weight 32k + i
byte 48  qs      128 bytes: each 32 hold 64 weights, low nibbles the first 32, high nibbles the next 32
weight = (d * scale) * q - dmin * minimum
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, high_bits, nibbles
from pythia_gguf.formats.q4_k import scale_groups

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    low = nibbles(blocks["qs"].reshape(-1, 4, 32)).reshape(-1, 256)
    return scale_groups(blocks, low | (high_bits(blocks["qh"]) << 4))


Q5_K = Format(name="Q5_K", ggml_id=13, block_weights=256, block=BLOCK, decode_blocks=_decode)
