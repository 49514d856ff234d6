"""Q8_0: 32 weights, one scale, 8 bits each.

byte 0   d   float16
byte 2   qs  32 signed bytes
weight = q * d
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves

BLOCK = np.dtype([("d", "<f2"), ("qs", "i1", 32)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    return blocks["qs"].astype(np.float32) * halves(blocks["d"])


Q8_0 = Format(name="Q8_0", ggml_id=8, block_weights=32, block=BLOCK, decode_blocks=_decode)
