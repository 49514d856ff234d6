"""Reads packed blocks: codes, scales and minima of 32 columns of 16 rows, for every format.

kernels/packed.py says where the parts of a block lie. For block-local column run `sub` (0 for formats of 32):

    codes(data, at, sub)   8 vectors of words: bytes of columns 4 j .. 4 j + 3 in vector j, unsigned
    scales(data, at, sub)  float32 factors of columns 0..15 and 16..31
    minima(data, at, sub)  float32 minima of the same columns
    weight = scale * (code - offset) - minimum, each operation rounded as in formats/ (llama.cpp's dequantize_row_*)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pythia_gguf.formats.iq4_nl import LEVELS
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.words import floats, halves, levels, moved, no_floats, signed, small, words

LEVELS_64 = np.tile((LEVELS.astype(np.int32) + 128).astype(np.uint8), 4)
_MOST_LEVEL = int(LEVELS_64.max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The functions of a format.

    columns   columns of a block
    n_bytes   bytes of a packed block of 16 rows
    most      the largest code
    offset    to subtract from a code
    n_scales  scales of 32 columns: 1 or 2
    has_min   whether the format has minima
    """

    columns: int
    n_bytes: int
    most: int
    offset: int
    n_scales: int
    has_min: bool
    codes: Callable
    scales: Callable
    minima: Callable


@inlined
def _nibbles(data, at):
    """Four bits of 32 columns, from four vectors."""
    a, b, c, d = words(data, at), words(data, at + 64), words(data, at + 128), words(data, at + 192)
    return _LOW(a), _LOW(b), _LOW(c), _LOW(d), _HIGH(a), _HIGH(b), _HIGH(c), _HIGH(d)


def _pairs(target: int) -> Callable:
    """Make the function that reads two bits of 32 columns, from two vectors, to bits `target` and `target` + 1."""
    m0, m1, m2, m3 = (moved(i, 2, target) for i in range(0, 8, 2))

    @inlined
    def pairs(data, at):
        a, b = words(data, at), words(data, at + 64)
        return m0(a), m0(b), m1(a), m1(b), m2(a), m2(b), m3(a), m3(b)

    return pairs


def _plane(target: int) -> Callable:
    """Make the function that reads one bit of 32 columns, from one vector, to bit `target`."""
    m0, m1, m2, m3, m4, m5, m6, m7 = (moved(i, 1, target) for i in range(8))

    @inlined
    def plane(data, at):
        w = words(data, at)
        return m0(w), m1(w), m2(w), m3(w), m4(w), m5(w), m6(w), m7(w)

    return plane


_LOW, _HIGH = moved(0, 4, 0), moved(4, 4, 0)
_lowest_pairs, _upper_pairs = _pairs(0), _pairs(4)
_third_bits, _fifth_bits = _plane(2), _plane(4)


@inlined
def _joined(low, high):
    """Codes from their lower and upper bits."""
    return (
        low[0] | high[0],
        low[1] | high[1],
        low[2] | high[2],
        low[3] | high[3],
        low[4] | high[4],
        low[5] | high[5],
        low[6] | high[6],
        low[7] | high[7],
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


def _four_bit_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        return _nibbles(data, at + head + sub * 256)

    return codes


def _five_bit_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        base = at + head + sub * 320
        return _joined(_nibbles(data, base + 64), _fifth_bits(data, base))

    return codes


def _level_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        return _looked_up(_nibbles(data, at + head + sub * 256))

    return codes


@inlined
def _byte_codes(data, at, sub):
    return (
        words(data, at + 32),
        words(data, at + 96),
        words(data, at + 160),
        words(data, at + 224),
        words(data, at + 288),
        words(data, at + 352),
        words(data, at + 416),
        words(data, at + 480),
    )


def _two_bit_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        return _lowest_pairs(data, at + head + sub * 128)

    return codes


def _three_bit_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        base = at + head + sub * 192
        return _joined(_lowest_pairs(data, base + 64), _third_bits(data, base))

    return codes


def _six_bit_codes(head: int) -> Callable:
    @inlined
    def codes(data, at, sub):
        base = at + head + sub * 384
        return _joined(_nibbles(data, base + 128), _upper_pairs(data, base))

    return codes


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


def _layout(columns, n_bytes, most, offset, n_scales, codes, scales, minima=_no_minima):
    return Layout(
        columns=columns,
        n_bytes=n_bytes,
        most=most,
        offset=offset,
        n_scales=n_scales,
        has_min=minima is not _no_minima,
        codes=codes,
        scales=scales,
        minima=minima,
    )


LAYOUTS = {
    "Q4_0": _layout(32, 288, 15, 8, 1, _four_bit_codes(32), _d),
    "Q4_1": _layout(32, 320, 15, 0, 1, _four_bit_codes(64), _d, _m_minima),
    "Q5_0": _layout(32, 352, 31, 16, 1, _five_bit_codes(32), _d),
    "Q5_1": _layout(32, 384, 31, 0, 1, _five_bit_codes(64), _d, _m_minima),
    "Q8_0": _layout(32, 544, 255, 128, 1, _byte_codes, _d),
    "Q2_K": _layout(256, 1344, 3, 0, 2, _two_bit_codes(320), _q2_k_scales, _q2_k_minima),
    "Q3_K": _layout(256, 1824, 7, 4, 2, _three_bit_codes(288), _signed_pair_scales),
    "Q4_K": _layout(256, 2368, 15, 0, 1, _four_bit_codes(320), _k_scales, _k_minima),
    "Q5_K": _layout(256, 2880, 31, 0, 1, _five_bit_codes(320), _k_scales, _k_minima),
    "Q6_K": _layout(256, 3360, 63, 32, 2, _six_bit_codes(288), _signed_pair_scales),
    "IQ4_NL": _layout(32, 288, _MOST_LEVEL, 128, 1, _level_codes(32), _d),
    "IQ4_XS": _layout(256, 2208, _MOST_LEVEL, 128, 1, _level_codes(160), _iq4_xs_scales),
}
