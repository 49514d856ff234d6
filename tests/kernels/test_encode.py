"""Every encoder gives llama.cpp's bytes, on ordinary weights and on the ones where implementations part ways."""

from __future__ import annotations

import numpy as np
import pytest

import oracle
from kernels.rows import ROW, edges, full_floats, gaussian, importances
from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.encode import ENCODABLE, encode

INPUTS = {
    "gaussian": lambda: gaussian(1, 512),
    "edges": lambda: edges(2, 270),
    "full_floats": lambda: full_floats(3, 256),
}


IMPORTANCES = importances(5)


def ours(name: str, weights: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    out = np.full(FORMATS[name].row_bytes(weights.size), 0xAA, np.uint8)
    encode(name, weights.reshape(-1), out, importance)
    return out


@pytest.mark.parametrize("name", ENCODABLE)
@pytest.mark.parametrize("kind", INPUTS)
def test_bytes_are_llama_cpps(name, kind):
    weights, fmt = INPUTS[kind](), FORMATS[name]
    theirs = oracle.encode(fmt.ggml_id, weights, ROW, fmt.block_bytes, fmt.block_weights)
    wrong = (ours(name, weights) != theirs).reshape(-1, fmt.block_bytes).any(axis=1).nonzero()[0]
    assert not wrong.size, f"{wrong.size} blocks differ, first {wrong[0]} (row {wrong[0] * fmt.block_weights // ROW})"


@pytest.mark.parametrize("name", ENCODABLE)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_bytes_are_llama_cpps_with_an_importance_matrix(name, kind, importance):
    weights, fmt, values = INPUTS[kind](), FORMATS[name], IMPORTANCES[importance]
    theirs = oracle.encode(fmt.ggml_id, weights, ROW, fmt.block_bytes, fmt.block_weights, importance=values)
    wrong = (ours(name, weights, values) != theirs).reshape(-1, fmt.block_bytes).any(axis=1).nonzero()[0]
    assert not wrong.size, f"{wrong.size} blocks differ, first {wrong[0]} (row {wrong[0] * fmt.block_weights // ROW})"


@pytest.mark.parametrize("name", [n for n in ENCODABLE if n != "Q8_0"])
def test_importance_matters(name):
    weights = gaussian(1, 64)
    assert (ours(name, weights, IMPORTANCES["squares"]) != ours(name, weights)).any()


@pytest.mark.parametrize("name", ENCODABLE)
def test_rows_that_do_not_fill_a_chunk_keep_their_importances(name):
    """33 rows of two blocks: the mean squares of a row, and the columns, begin again with each."""
    fmt = FORMATS[name]
    row = 2 * fmt.block_weights
    weights = gaussian(6, 17).reshape(-1)[: 33 * row].copy()
    values = IMPORTANCES["squares"][:row].copy()
    theirs = oracle.encode(fmt.ggml_id, weights, row, fmt.block_bytes, fmt.block_weights, importance=values)
    assert np.array_equal(ours(name, weights, values), theirs)


@pytest.mark.parametrize("name", ENCODABLE)
@pytest.mark.parametrize("n_blocks", [1, 3, 33])
def test_any_number_of_blocks_gives_the_same_bytes(name, n_blocks):
    """Kernels work on chunks of 512 or 1024 weights; what is left over must not differ."""
    fmt = FORMATS[name]
    weights = gaussian(4, 9).reshape(-1)[: n_blocks * fmt.block_weights].copy()
    whole = ours(name, gaussian(4, 9))
    assert np.array_equal(ours(name, weights), whole[: n_blocks * fmt.block_bytes])


@pytest.mark.parametrize(
    ("weights", "out", "message"),
    [
        (np.zeros(256, np.float64), np.zeros(144, np.uint8), "weights: expected a writable, contiguous float32"),
        (np.zeros((1, 256), np.float32), np.zeros(144, np.uint8), "weights: expected a writable"),
        (np.zeros(512, np.float32)[::2], np.zeros(144, np.uint8), "weights: expected a writable"),
        (np.zeros(256, np.float32), np.zeros(143, np.uint8), "256 weights need 144 bytes, got 143"),
        (np.zeros(256, np.float32), np.zeros(145, np.uint8), "256 weights need 144 bytes, got 145"),
        (np.zeros(255, np.float32), np.zeros(144, np.uint8), "row of 255 weights is not a multiple of 256"),
        (np.zeros(256, np.float32), np.zeros(144, np.int8), "out: expected a writable"),
    ],
)
def test_no_kernel_sees_a_buffer_that_does_not_fit(weights, out, message):
    with pytest.raises(ValueError, match=message):
        encode("Q4_K", weights, out)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.zeros(256), "importance: expected a writable, contiguous float32"),
        (np.zeros((1, 256), np.float32), "importance: expected"),
        (np.zeros(0, np.float32), "512 weights are not rows of 0 columns"),
        (np.zeros(384, np.float32), "512 weights are not rows of 384 columns"),
        (np.zeros(128, np.float32), "rows of 128 columns in whole blocks"),
        (np.zeros(1024, np.float32), "512 weights are not rows of 1024 columns"),
    ],
)
def test_no_kernel_sees_importances_that_do_not_fit(importance, message):
    with pytest.raises(ValueError, match=message):
        encode("Q4_K", np.zeros(512, np.float32), np.zeros(288, np.uint8), importance)


def test_read_only_buffers_are_refused():
    weights = np.zeros(256, np.float32)
    weights.flags.writeable = False
    with pytest.raises(ValueError, match="weights: expected a writable"):
        encode("Q4_K", weights, np.zeros(144, np.uint8))


def test_inputs_of_these_tests_tell_the_nearest_wrong_rounding():
    """Of the inputs alone: they tell C's roundf from half-to-even: some Q8_0 code differs between the two."""
    scaled = edges(2, 270).reshape(-1, 32)
    largest = np.abs(scaled).max(axis=1, keepdims=True)
    v = scaled * np.divide(1, largest / np.float32(127), out=np.zeros_like(largest), where=largest > 1e-30)
    away = np.sign(v) * np.floor(np.abs(v) + np.float32(0.5))
    assert (away != np.rint(v)).any()
