"""Layout and decode of every format are llama.cpp's, and decode gives the same bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import oracle
from pythia_gguf.formats import FORMAT_OF_ID, FORMATS
from pythia_gguf.formats.plain import bf16_bits, round_bf16

QUANTIZED = [f for f in FORMATS.values() if f.block_weights > 1]


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
def test_layout_is_llama_cpps(fmt):
    name, block_weights, block_bytes = oracle.type_facts(fmt.ggml_id)
    assert (name.upper(), block_weights, block_bytes) == (fmt.name, fmt.block_weights, fmt.block_bytes)
    assert FORMAT_OF_ID[fmt.ggml_id] is fmt


@pytest.mark.parametrize("fmt", QUANTIZED, ids=lambda f: f.name)
def test_decode_gives_llama_cpps_bits(fmt):
    rng = np.random.default_rng(fmt.ggml_id)
    data = rng.integers(0, 256, (4096, fmt.block_bytes), dtype=np.uint8)
    blocks = data.view(fmt.block)
    for field in ("d", "dmin", "m"):
        if field in fmt.block.names:  # any scale but NaN and infinity: the largest, subnormals, both zeros
            blocks[field] = np.float16(rng.standard_normal(blocks.shape) * 10.0 ** rng.integers(-7, 4, blocks.shape))
    # _k and _nl are spelled as in ggml-quants.c
    name = fmt.name.lower().replace("_k", "_K")
    theirs = oracle.decode(name, data, 4096 * fmt.block_weights)
    assert np.array_equal(fmt.decode(data).view(np.uint32), theirs.view(np.uint32))


def test_bfloat16_is_the_upper_half_of_a_float():
    # 0x3FC0 = 1.5, 0xC2F7 = -123.5: sign, 8 bits of exponent, 7 of mantissa
    assert FORMATS["BF16"].decode(np.array([0x3FC0, 0xC2F7], "<u2")).tolist() == [1.5, -123.5]


def test_rounding_to_bfloat16_is_to_nearest_even():
    """Of every bfloat16: itself, the tie above it, and the floats right beside that tie."""
    bits = np.arange(0, 1 << 32, 1 << 16)[:, None] + [0, 0x7FFF, 0x8000, 0x8001]
    values = bits[bits[:, 0] & 0x7F800000 != 0x7F800000].astype(np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        wanted = values.astype(ml_dtypes.bfloat16)
    assert np.array_equal(bf16_bits(round_bf16(values)), wanted.view(np.uint16))
    assert np.array_equal(round_bf16(values), wanted.astype(np.float32))


def test_decode_refuses_bytes_that_are_not_whole_blocks():
    with pytest.raises(ValueError, match="17 bytes are not a multiple of 18"):
        FORMATS["Q4_0"].decode(bytes(17))


def test_row_bytes_refuses_rows_that_are_not_whole_blocks():
    with pytest.raises(ValueError, match="row of 128 weights is not a multiple of 256"):
        FORMATS["Q4_K"].row_bytes(128)
