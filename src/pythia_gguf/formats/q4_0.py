"""Q4_0: 32 weights, one scale, 4 bits each, zero in the middle.

byte 0   d   float16
byte 2   qs  16 bytes: low nibbles weights 0..15, high nibbles 16..31
weight = (q - 8) * d
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    return (nibbles(blocks["qs"]).astype(np.int32) - 8).astype(np.float32) * halves(blocks["d"])


Q4_0 = Format(name="Q4_0", ggml_id=2, block_weights=32, block=BLOCK, decode_blocks=_decode)
