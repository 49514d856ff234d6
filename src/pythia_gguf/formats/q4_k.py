"""Q4_K: 256 weights in 8 groups of 32, each group with a 6-bit scale and a 6-bit minimum, 4 bits a weight.

byte 0   d       float16, unit of the scales
byte 2   dmin    float16, unit of the minima
byte 4   scales  12 bytes, 6-bit scales s0..s7 and minima m0..m7:
                 bytes 0..3   low 6 bits: s0..s3;   top 2 bits: top 2 bits of s4..s7
                 bytes 4..7   low 6 bits: m0..m3;   top 2 bits: top 2 bits of m4..m7
                 bytes 8..11  low nibble: low 4 bits of s4..s7;  high nibble: low 4 bits of m4..m7
byte 16  qs      128 bytes: each 32 hold 64 weights, low nibbles the first 32, high nibbles the next 32
weight = (d * scale) * q - dmin * minimum
"""

from __future__ import annotations

import numpy as np

from pythia_gguf.formats.format import Format, halves, nibbles

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])


def unpack_scales(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[B, 12] bytes -> scales and minima, uint8 [B, 8] each."""
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4)], axis=1)
    minima = np.concatenate([b & 63, (c >> 4) | ((b >> 6) << 4)], axis=1)
    return scales, minima


def scale_groups(blocks: np.ndarray, q_BW: np.ndarray) -> np.ndarray:
    """Codes [B, 256] -> weights [B, 256] with the scales and minima of Q4_K, which Q5_K shares."""
    scales, minima = unpack_scales(blocks["scales"])
    scale_BG = halves(blocks["d"]) * scales.astype(np.float32)
    min_BG = halves(blocks["dmin"]) * minima.astype(np.float32)
    q_BGI = q_BW.astype(np.float32).reshape(-1, 8, 32)
    return (scale_BG[:, :, None] * q_BGI - min_BG[:, :, None]).reshape(-1, 256)


def _decode(blocks: np.ndarray) -> np.ndarray:
    return scale_groups(blocks, nibbles(blocks["qs"].reshape(-1, 4, 32)).reshape(-1, 256))


Q4_K = Format(name="Q4_K", ggml_id=12, block_weights=256, block=BLOCK, decode_blocks=_decode)
