"""What a format is: a block layout as a NumPy structured dtype, and the decode that defines its meaning.

Layouts and decode follow llama.cpp 0c1e57098 (ggml/src/ggml-common.h for the structs, ggml/src/ggml-quants.c
`dequantize_row_*` for the arithmetic); decode does the same float32 operations in the same order, so its results are
the same bits.

Axis letters used in this folder: B blocks, W weights of a block, G groups that share a scale, I weights of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DecodeBlocks = Callable[[np.ndarray], np.ndarray]
# Exponents of numbers that are not finite, by the type of a field; "<u2" of a value without a block is bfloat16.
_EXPONENTS = {"<f2": 0x7C00, "<u2": 0x7F80, "<f4": 0x7F800000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one block of weights is encoded.

    name           as llama.cpp prints it: "Q4_K"
    ggml_id        its number in a GGUF file (`enum ggml_type`)
    block_weights  weights in one block
    block          structured dtype of one block; `block.itemsize` bytes
    decode_blocks  [B] of `block` -> float32 [B, block_weights]
    """

    name: str
    ggml_id: int
    block_weights: int
    block: np.dtype
    decode_blocks: DecodeBlocks

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return self.block.itemsize

    @property
    def bits_per_weight(self) -> float:
        """Storage of one weight, scales included, in bits."""
        return 8 * self.block_bytes / self.block_weights

    def row_bytes(self, n_weights: int) -> int:
        """Bytes of a row of `n_weights`; raises ValueError when the row is not whole blocks."""
        n_blocks, rest = divmod(n_weights, self.block_weights)
        if rest:
            raise ValueError(f"a row of {n_weights} weights is not a multiple of {self.block_weights} ({self.name})")
        return n_blocks * self.block_bytes

    def decode(self, data: np.ndarray | bytes | bytearray | memoryview) -> np.ndarray:
        """Weights of encoded bytes, float32 [n_weights]; raises ValueError unless `data` is whole blocks."""
        raw = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data.reshape(-1).view(np.uint8)
        if raw.size % self.block_bytes:
            raise ValueError(f"{raw.size} bytes are not a multiple of {self.block_bytes} ({self.name})")
        blocks = np.ascontiguousarray(raw).view(self.block)
        with np.errstate(over="ignore", invalid="ignore"):
            return self.decode_blocks(blocks).reshape(-1)

    def first_not_finite(self, data: np.ndarray) -> int | None:
        """Number of the first block with a scale, or weight, that is infinity or NaN; None when there is none.

        data  u8, whole blocks, contiguous
        """
        blocks = data.reshape(-1).view(self.block)
        for name in self.block.names or ():
            kind = self.block[name].str
            if kind not in _EXPONENTS or (kind == "<u2" and self.block_weights > 1):
                continue
            exponent, n = _EXPONENTS[kind], self.block[name].itemsize
            bits = np.ascontiguousarray(blocks[name]).view(f"<u{n}")
            # Infinity and NaN are above all other bit patterns: those with + as signed numbers, those with - as
            # unsigned ones.
            if bits.view(f"<i{n}").max() >= exponent or bits.max() >= exponent | 1 << 8 * n - 1:
                return int((bits & bits.dtype.type(exponent) == exponent).argmax())
        return None


def halves(d: np.ndarray) -> np.ndarray:
    """float16 scales [B] as float32 [B, 1], ready to multiply weights [B, W]."""
    return d.astype(np.float32)[:, None]


def nibbles(qs: np.ndarray) -> np.ndarray:
    """Unpack 4-bit codes: [..., n] bytes -> [..., 2n], all low nibbles first, then all high ones."""
    return np.concatenate([qs & 15, qs >> 4], axis=-1)


def pairs(qs: np.ndarray) -> np.ndarray:
    """Unpack the 2-bit codes of a 256-weight block: [B, 64] bytes -> [B, 256].

    Each 32 bytes hold 128 weights in four runs of 32: bits 0-1 the first run, 2-3 the second, 4-5, 6-7.
    """
    qs_BHI = qs.reshape(-1, 2, 1, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(1, 1, 4, 1)
    return ((qs_BHI >> shifts) & 3).reshape(-1, 256)


def high_bits(qh: np.ndarray) -> np.ndarray:
    """Unpack one bit per weight of a 256-weight block: [B, 32] bytes -> [B, 256]; bit k belongs to run k of 32."""
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    return ((qh[:, None, :] >> shifts) & 1).reshape(-1, 256)
