"""IQ4_NL: 32 weights, one scale, 4-bit indices into 16 levels that are denser near zero.

byte 0   d   float16
byte 2   qs  16 bytes: low nibbles weights 0..15, high nibbles 16..31
weight = d * LEVELS[q]
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles

# llama.cpp ggml/src/ggml-common.h, kvalues_iq4nl
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def _decode(blocks: np.ndarray) -> np.ndarray:
    return halves(blocks["d"]) * LEVELS[nibbles(blocks["qs"])].astype(np.float32)


IQ4_NL = Format(name="IQ4_NL", ggml_id=20, block_weights=32, block=BLOCK, decode_blocks=_decode)
