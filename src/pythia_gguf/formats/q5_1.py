"""Q5_1: 32 weights, one scale and one minimum, 5 bits each.

byte 0   d   float16
byte 2   m   float16
byte 4   qh  32 bits: bit j is the top bit of weight j
byte 8   qs  16 bytes: low nibbles weights 0..15, high nibbles 16..31
weight = q * d + m
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles
from pythia_gguf.formats.q5_0 import fifth_bits

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "<u4"), ("qs", "u1", 16)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    q = nibbles(blocks["qs"]) | fifth_bits(blocks["qh"])
    return q.astype(np.float32) * halves(blocks["d"]) + halves(blocks["m"])


Q5_1 = Format(name="Q5_1", ggml_id=7, block_weights=32, block=BLOCK, decode_blocks=_decode)
