"""What a packed block means: codes, scales and minima of 32 columns of 16 rows, for every format.

Knows no product. In kernels/packed.py is where the parts lie. For block-local column run `sub` (0 for formats of 32):

    codes(data, at, sub)   8 vectors of words: bytes of columns 4 j .. 4 j + 3 in vector j, unsigned
    scales(data, at, sub)  float32 factors of columns 0..15 and 16..31
    minima(data, at, sub)  what is subtracted from them
    weight = scale * (code - offset) - minimum, each operation rounded as in formats/ (llama.cpp's dequantize_row_*)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pythia_gguf.formats.iq4_nl import LEVELS
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.words import floats, halves, levels, no_floats, signed, small, words

NIBBLES = 0x0F0F0F0F
PAIRS = 0x03030303
BITS = 0x01010101
LEVELS_64 = np.tile((LEVELS.astype(np.int32) + 128).astype(np.uint8), 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The functions of a format.

    columns   of a block
    n_bytes   of a packed block
    offset    what is subtracted from a code
    n_scales  of 32 columns: 1 or 2
    has_min   whether minima are not all zero
    """

    columns: int
    n_bytes: int
    offset: int
    n_scales: int
    has_min: bool
    codes: Callable
    scales: Callable
    minima: Callable


@inlined
def _four(data, at, shift):
    """Four vectors shifted and masked to their nibbles."""
    return (
        (words(data, at) >> shift) & NIBBLES,
        (words(data, at + 64) >> shift) & NIBBLES,
        (words(data, at + 128) >> shift) & NIBBLES,
        (words(data, at + 192) >> shift) & NIBBLES,
    )


@inlined
def _eight(data, at, shift, mask):
    """Eight vectors shifted and masked."""
    return (
        (words(data, at) >> shift) & mask,
        (words(data, at + 64) >> shift) & mask,
        (words(data, at + 128) >> shift) & mask,
        (words(data, at + 192) >> shift) & mask,
        (words(data, at + 256) >> shift) & mask,
        (words(data, at + 320) >> shift) & mask,
        (words(data, at + 384) >> shift) & mask,
        (words(data, at + 448) >> shift) & mask,
    )


@inlined
def _joined(low, high, shift):
    """Codes from their lower and upper bits."""
    return (
        low[0] | (high[0] << shift),
        low[1] | (high[1] << shift),
        low[2] | (high[2] << shift),
        low[3] | (high[3] << shift),
        low[4] | (high[4] << shift),
        low[5] | (high[5] << shift),
        low[6] | (high[6] << shift),
        low[7] | (high[7] << shift),
    )


@inlined
def _looked_up(i):
    return (
        levels(LEVELS_64, i[0]),
        levels(LEVELS_64, i[1]),
        levels(LEVELS_64, i[2]),
        levels(LEVELS_64, i[3]),
        levels(LEVELS_64, i[4]),
        levels(LEVELS_64, i[5]),
        levels(LEVELS_64, i[6]),
        levels(LEVELS_64, i[7]),
    )


@inlined
def _plane(data, at):
    """The fifth bits of 32 columns, from one vector."""
    w = words(data, at)
    return (
        w & BITS,
        (w >> 1) & BITS,
        (w >> 2) & BITS,
        (w >> 3) & BITS,
        (w >> 4) & BITS,
        (w >> 5) & BITS,
        (w >> 6) & BITS,
        (w >> 7) & BITS,
    )


def _nibble_codes(start: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        return _four(data, at + start, 0) + _four(data, at + start, 4)

    return codes


def _five_bit_codes(plane: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        low = _four(data, at + plane + 64, 0) + _four(data, at + plane + 64, 4)
        return _joined(low, _plane(data, at + plane), 4)

    return codes


def _level_codes(start: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        base = at + start + sub * 256
        return _looked_up(_four(data, base, 0) + _four(data, base, 4))

    return codes


@inlined
def _q8_0_codes(data, at, sub):
    return _eight(data, at + 32, 0, -1)


@inlined
def _q2_k_codes(data, at, sub):
    return _eight(data, at + 320 + (sub >> 2) * 512, (sub & 3) * 2, PAIRS)


@inlined
def _q3_k_codes(data, at, sub):
    low = _eight(data, at + 800 + (sub >> 2) * 512, (sub & 3) * 2, PAIRS)
    return _joined(low, _eight(data, at + 288, sub, BITS), 2)


@inlined
def _q4_k_codes(data, at, sub):
    return _eight(data, at + 320 + (sub >> 1) * 512, (sub & 1) * 4, NIBBLES)


@inlined
def _q5_k_codes(data, at, sub):
    low = _eight(data, at + 832 + (sub >> 1) * 512, (sub & 1) * 4, NIBBLES)
    return _joined(low, _eight(data, at + 320, sub, BITS), 4)


@inlined
def _q6_k_codes(data, at, sub):
    half, run = sub >> 2, sub & 3
    low = _eight(data, at + 288 + half * 1024 + (run & 1) * 512, (run >> 1) * 4, NIBBLES)
    return _joined(low, _eight(data, at + 2336 + half * 512, run * 2, PAIRS), 4)


@inlined
def _d(data, at, sub):
    d = halves(data, at)
    return d, d


@inlined
def _no_minima(data, at, sub):
    return no_floats(), no_floats()


@inlined
def _m_minima(data, at, sub):
    m = no_floats() - halves(data, at + 32)
    return m, m


@inlined
def _k_scales(data, at, sub):
    s = halves(data, at) * floats(small(data, at + 64 + sub * 16))
    return s, s


@inlined
def _k_minima(data, at, sub):
    m = halves(data, at + 32) * floats(small(data, at + 192 + sub * 16))
    return m, m


@inlined
def _q2_k_scales(data, at, sub):
    d = halves(data, at)
    a, b = small(data, at + 64 + sub * 32), small(data, at + 80 + sub * 32)
    return d * floats(a & 15), d * floats(b & 15)


@inlined
def _q2_k_minima(data, at, sub):
    d = halves(data, at + 32)
    a, b = small(data, at + 64 + sub * 32), small(data, at + 80 + sub * 32)
    return d * floats(a >> 4), d * floats(b >> 4)


@inlined
def _signed_pair_scales(data, at, sub):
    d = halves(data, at)
    return d * floats(signed(data, at + 32 + sub * 32)), d * floats(signed(data, at + 48 + sub * 32))


@inlined
def _iq4_xs_scales(data, at, sub):
    s = halves(data, at) * floats(signed(data, at + 32 + sub * 16))
    return s, s


def _layout(columns, n_bytes, offset, n_scales, codes, scales, minima=_no_minima):
    return Layout(
        columns=columns,
        n_bytes=n_bytes,
        offset=offset,
        n_scales=n_scales,
        has_min=minima is not _no_minima,
        codes=codes,
        scales=scales,
        minima=minima,
    )


LAYOUTS = {
    "Q4_0": _layout(32, 288, 8, 1, _nibble_codes(32), _d),
    "Q4_1": _layout(32, 320, 0, 1, _nibble_codes(64), _d, _m_minima),
    "Q5_0": _layout(32, 352, 16, 1, _five_bit_codes(32), _d),
    "Q5_1": _layout(32, 384, 0, 1, _five_bit_codes(64), _d, _m_minima),
    "Q8_0": _layout(32, 544, 128, 1, _q8_0_codes, _d),
    "Q2_K": _layout(256, 1344, 0, 2, _q2_k_codes, _q2_k_scales, _q2_k_minima),
    "Q3_K": _layout(256, 1824, 4, 2, _q3_k_codes, _signed_pair_scales),
    "Q4_K": _layout(256, 2368, 0, 1, _q4_k_codes, _k_scales, _k_minima),
    "Q5_K": _layout(256, 2880, 0, 1, _q5_k_codes, _k_scales, _k_minima),
    "Q6_K": _layout(256, 3360, 32, 2, _q6_k_codes, _signed_pair_scales),
    "IQ4_NL": _layout(32, 288, 128, 1, _level_codes(32), _d),
    "IQ4_XS": _layout(256, 2208, 128, 1, _level_codes(160), _iq4_xs_scales),
}
