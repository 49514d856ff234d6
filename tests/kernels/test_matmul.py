"""Matrix products of every kind that this processor has, against float64 on the decoded weights.

The kinds are `known_activations()`: where there are no tiles of bfloat16, products with them are refused instead.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.encode import encode
from pythia_gguf.kernels.matmul import known_activations, matmul, new_records, product_activations, quantizer_address
from pythia_gguf.kernels.packed import PackedMatrix, new_packed, pack_rows
from pythia_gguf.kernels.unpack import LAYOUTS

PLAIN = {"F32": np.float32, "F16": np.float16}
# Odd numbers of groups, a row that is not whole 16; whole and cut chunks of 512 columns.
N_ROWS = 71
N_COLUMNS = (256, 1280)


@cache
def weights(format_name: str, n_columns: int) -> tuple[PackedMatrix, np.ndarray]:
    """Packed, and as float64 [N_ROWS, n_columns]."""
    values = np.random.default_rng(n_columns).standard_normal((N_ROWS, n_columns)).astype(np.float32)
    if format_name in PLAIN:
        raw = values.astype(PLAIN[format_name]).view(np.uint8).reshape(N_ROWS, -1)
    elif format_name == "BF16":
        raw = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(N_ROWS, -1)
    else:
        raw = np.empty((N_ROWS, FORMATS[format_name].row_bytes(n_columns)), np.uint8)
        encode(format_name, values.reshape(-1), raw.reshape(-1))
    packed = new_packed(format_name, N_ROWS, n_columns)
    pack_rows(packed, 0, raw)
    return packed, FORMATS[format_name].decode(raw).reshape(N_ROWS, n_columns).astype(np.float64)


def activations(n_tokens: int, n_columns: int) -> np.ndarray:
    """Of very different size from row to row."""
    numbers = np.random.default_rng(n_tokens).standard_normal((n_tokens, n_columns))
    return (numbers * 10.0 ** (np.arange(n_tokens) % 7 - 3)[:, None]).astype(np.float32)


def error(found: np.ndarray, x: np.ndarray, w: np.ndarray) -> float:
    """Largest difference over the size that a sum has: the root of the sum of squared products."""
    size = np.sqrt((x.astype(np.float64) ** 2) @ (w**2).T)
    return float((np.abs(found[:, : len(w)] - x.astype(np.float64) @ w.T) / size).max())


# float32: one rounding for each of 1,280 columns. bf16x3: what both sides lose is up to 2**-18 of each product, the
# product that is left out up to 2**-16. int8: codes of 127 steps.
MOST = {"float32": 2e-6, "bf16x3": 3e-5, "int8": 0.05}


@pytest.mark.parametrize("n_columns", N_COLUMNS)
@pytest.mark.parametrize("format_name", [*PLAIN, "BF16", *LAYOUTS])
def test_products_are_those_of_float64(format_name: str, n_columns: int):
    packed, w = weights(format_name, n_columns)
    for kind in known_activations():
        if product_activations(format_name, kind) != kind:
            continue
        whole = activations(70, n_columns)
        expected = matmul(packed, whole, kind)
        assert error(expected, whole, w) <= MOST[kind], kind
        assert (expected[:, N_ROWS:] == 0).all()
        for n_tokens in (1, 2, 16, 17, 33):
            assert np.array_equal(matmul(packed, whole[:n_tokens], kind), expected[:n_tokens]), (kind, n_tokens)
        for groups in (range(1, 4), range(4, 5)):
            some = matmul(packed, whole, kind, groups)[:, groups.start * 16 : groups.stop * 16]
            assert np.array_equal(some, expected[:, groups.start * 16 : groups.stop * 16]), (kind, groups)


def test_tolerance_of_these_tests_is_below_single_bfloat16_and_two_products_of_three():
    """Of the tolerance alone: computed without kernels."""
    _, w = weights("F16", 1280)
    x = activations(70, 1280)

    def high(v: np.ndarray) -> np.ndarray:
        return ((v.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32).astype(np.float64)

    low_x, low_w = high(x - high(x)), high(w - high(w))
    # All three are close enough, so it is the two that are not.
    three = high(x) @ high(w).T + high(x) @ low_w.T + low_x @ high(w).T
    assert error(three, x, w) <= MOST["bf16x3"]
    for wrong in (high(x) @ high(w).T, high(x) @ w.T, x.astype(np.float64) @ high(w).T):
        assert error(wrong, x, w) > 100 * MOST["bf16x3"]


def test_activations_are_two_bfloat16_numbers_in_tiles():
    """On every processor: records [T / 16][columns / 32][high, low][16][32] whose two parts are x to 2**-17."""
    x = activations(37, 96)
    records = new_records(*x.shape)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)(quantizer_address("F32", "bf16x3"))
    for t in range(len(x)):
        # Columns in two runs, as heads and pieces of a product give them.
        for first, n in ((0, 32), (32, 64)):
            call(x[t, first:].ctypes.data, records.ctypes.data, 96, first, n, t, len(x))
    parts = records.reshape(-1)[: 48 * 96 * 4].view(np.uint16).astype(np.uint32) << 16
    high, low = parts.view(np.float32).reshape(3, 3, 2, 16, 32).transpose(2, 0, 3, 1, 4).reshape(2, 48, 96)
    assert (np.abs(high[:37] + low[:37] - x) <= np.abs(x) * 2.0**-17).all()
    assert (np.abs(low[:37]) <= np.abs(x) * 2.0**-8).all()
    assert np.abs(high[:37] - x).max() > 0
    assert (high[37:] == 0).all()
    assert (low[37:] == 0).all()


# Compiles the product with bfloat16 in tiles, and counts its instructions that multiply.
COMPILE_FOR_TILES = """
from pythia_gguf.kernels.matmul_bf16x3 import bf16x3_product
from pythia_gguf.kernels.matmul_float import plain_unpacker
kernel = bf16x3_product("F16", plain_unpacker("F16"))
print(kernel.compile_it().assembly().count("tdpbf16ps"))
"""


def test_products_in_tiles_are_compiled_for_processors_that_have_them():
    """On every x86-64, where they cannot be run: four tiles of sums, three products each. LLVM has none for others."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    env = os.environ | {"NUMBA_CPU_NAME": "sapphirerapids" if is_x86 else "generic", "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-c", COMPILE_FOR_TILES]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (run.returncode == 0) == is_x86, run.stderr
    assert run.stdout == ("12\n" if is_x86 else "")


def test_products_that_do_not_fit_are_refused():
    packed, _ = weights("F16", 256)
    x = activations(3, 256)
    with pytest.raises(ValueError, match=r"expected float32 \[T, 256\]"):
        matmul(packed, x[:, :224], "float32")
    with pytest.raises(ValueError, match="range"):
        matmul(packed, x, "float32", range(6))
    with pytest.raises(ValueError, match="F16 has no int8 product"):
        matmul(packed, x, "int8")
    narrow = new_packed("F16", 16, 40)
    with pytest.raises(ValueError, match="bf16x3 activations need whole 32 columns, got 40"):
        matmul(narrow, np.ones((1, 40), np.float32), "bf16x3")
