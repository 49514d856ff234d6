"""Q4_1: 32 weights, one scale and one minimum, 4 bits each.

byte 0   d   float16
byte 2   m   float16
byte 4   qs  16 bytes: low nibbles weights 0..15, high nibbles 16..31
weight = q * d + m
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    return nibbles(blocks["qs"]).astype(np.float32) * halves(blocks["d"]) + halves(blocks["m"])


Q4_1 = Format(name="Q4_1", ggml_id=3, block_weights=32, block=BLOCK, decode_blocks=_decode)
