"""Weights in, bytes of a format out: checks every buffer, then calls the kernel.

Kernels have no bounds checks, so the comparison of lengths here is the boundary of memory safety: nothing else calls an
encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.c_kernel import CKernel, kernel_of
from pythia_gguf.kernels.compiling import Job


class _Encoders(NamedTuple):
    """Two kernels for a format, and how many weights each takes at once on every CPU.

    module          the file that has them
    chunk           weights for `encode_<format>`
    weighted_chunk  weights for `encode_<format>_weighted`, which an importance matrix needs
    """

    module: str
    chunk: int
    weighted_chunk: int


_ENCODERS = {
    "Q4_0": _Encoders("q4_0", 1024, 1024),
    "Q4_1": _Encoders("q4_0", 1024, 1024),
    "Q5_0": _Encoders("q4_0", 1024, 1024),
    "Q5_1": _Encoders("q4_0", 1024, 1024),
    "Q8_0": _Encoders("q4_0", 1024, 1024),
    "Q2_K": _Encoders("q2_k", 512, 8192),
    "Q3_K": _Encoders("q3_k", 4096, 8192),
    "Q4_K": _Encoders("q4_k", 1024, 8192),
    "Q5_K": _Encoders("q4_k", 1024, 8192),
    "Q6_K": _Encoders("q6_k", 512, 512),
    "IQ4_NL": _Encoders("iq4_nl", 1024, 1024),
    "IQ4_XS": _Encoders("iq4_nl", 1024, 1024),
}
ENCODABLE = tuple(_ENCODERS)
# With an importance matrix: weights that share a mean square (0: a row) and its factor; None: the importance as it is.
_MEAN_SQUARES: dict[str, tuple[int, int] | None] = {
    "Q4_0": (0, 1),
    "Q4_1": (0, 1),
    "Q5_0": (0, 1),
    "Q5_1": (0, 1),
    "Q2_K": (256, 1),
    "Q3_K": (256, 2),
    "Q4_K": (256, 2),
    "Q5_K": (256, 2),
    "Q6_K": None,
    "IQ4_NL": (32, 2),
    "IQ4_XS": (256, 2),
}


def encode(format_name: str, weights: np.ndarray, out: np.ndarray, importance: np.ndarray | None = None) -> None:
    """Encode weights into bytes, the same bytes as llama.cpp 0c1e57098 makes.

    format_name  one of ENCODABLE
    weights      f32 [n]  finite, C-contiguous, writable; n a multiple of the format's block
    out          u8  [n / block_weights * block_bytes]  C-contiguous
    importance   f32 [n_columns]  finite; for each column the mean square of the activations that it is multiplied
                 with, from an importance matrix. n is whole rows then, a row whole blocks. Q8_0 ignores it.
    Raises ValueError when a buffer does not fit; nothing is written then.
    """
    block = FORMATS[format_name]
    _check(weights, np.dtype(np.float32), "weights")
    _check(out, np.dtype(np.uint8), "out")
    if out.size != block.row_bytes(weights.size):
        raise ValueError(
            f"{format_name}: {weights.size} weights need {block.row_bytes(weights.size)} bytes, got {out.size}"
        )
    given = [weights]
    if importance is not None and format_name in _MEAN_SQUARES:
        given.append(_counts(format_name, weights, importance))
    run, chunk = _kernel(format_name, len(given) == 2).run, chunk_weights(format_name, len(given) == 2)
    whole = weights.size // chunk * chunk
    run(*(values.ctypes.data for values in given), whole, out.ctypes.data)
    if whole < weights.size:
        # Kernels work on whole chunks of groups; blocks are independent, so zeros may fill the last one.
        padded = [np.zeros(chunk, np.float32) for _ in given]
        for values, short in zip(given, padded, strict=True):
            short[: weights.size - whole] = values[whole:]
        encoded = np.empty(block.row_bytes(chunk), np.uint8)
        run(*(values.ctypes.data for values in padded), chunk, encoded.ctypes.data)
        out[block.row_bytes(whole) :] = encoded[: block.row_bytes(weights.size - whole)]


def _counts(format_name: str, weights: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """How much the error of each weight counts, f32 [n]; raises ValueError unless weights are rows of whole blocks."""
    _check(importance, np.dtype(np.float32), "importance")
    row = importance.size
    if row == 0 or weights.size % row or row % FORMATS[format_name].block_weights:
        raise ValueError(f"{format_name}: {weights.size} weights are not rows of {row} columns in whole blocks")
    how = _MEAN_SQUARES[format_name]
    if how is None:
        return np.tile(importance, weights.size // row)
    counts, run = np.empty_like(weights), _weigh_errors().run
    run(weights.ctypes.data, weights.size, importance.ctypes.data, row, how[0] or row, how[1], counts.ctypes.data)
    return counts


def compile_encoder(format_name: str, is_weighted: bool = False) -> None:
    """Compile a format's encoder, or load it from the cache, so that the next call of `encode` starts at once.

    is_weighted  also the one for an importance matrix
    """
    for kernel in _kernels(format_name, is_weighted):
        kernel.load()


def encoder_jobs(names: Sequence[str], *, is_weighted: bool = False) -> list[Job]:
    """How encoders are compiled.

    names        some of ENCODABLE
    is_weighted  also the ones for an importance matrix
    """
    long = [name for name in names if name.endswith("_K")]
    ordered = [*long[::2], *(name for name in names if name not in long), *long[1::2]]
    kept = {name: all(kernel.is_kept for kernel in _kernels(name, is_weighted)) for name in names}
    return [Job(name, __name__, compile_encoder.__name__, (name, is_weighted), kept[name]) for name in ordered]


def chunk_weights(format_name: str, is_weighted: bool) -> int:
    """How many weights a kernel takes at once: the number of weights must be a multiple."""
    encoders = _ENCODERS[format_name]
    return encoders.weighted_chunk if is_weighted else encoders.chunk


def _kernels(format_name: str, is_weighted: bool) -> list[CKernel]:
    """The kernels of a format: one takes no importances, and two more are needed where it does and they are wanted."""
    if is_weighted and format_name in _MEAN_SQUARES:
        return [_kernel(format_name, False), _kernel(format_name, True), _weigh_errors()]
    return [_kernel(format_name, False)]


@cache
def _kernel(format_name: str, is_weighted: bool) -> CKernel:
    """It takes addresses of weights (then of what each one's error counts), how many they are, and the result's."""
    suffix, n_arguments = ("_weighted", 4) if is_weighted else ("", 3)
    return kernel_of(_ENCODERS[format_name].module, f"encode_{format_name.lower()}{suffix}", n_arguments)


@cache
def _weigh_errors() -> CKernel:
    return kernel_of("weighted", "weigh_errors", 7)


def _check(array: np.ndarray, dtype: np.dtype, name: str) -> None:
    if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(
            f"{name}: expected a writable, contiguous {dtype} array of one axis,"
            f" got {array.dtype} with shape {array.shape}"
        )
