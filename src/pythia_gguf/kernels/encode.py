"""Weights in, bytes of a format out: checks every buffer, then calls the kernel.

Kernels have no bounds checks, so the comparison of lengths here is the boundary of memory safety: nothing else calls an
encoder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.jit import is_compiled
from pythia_gguf.kernels.weighted import weigh_errors

# format -> module of this package that has `encode_<format>` and CHUNK_WEIGHTS, and for an importance matrix
# `encode_<format>_weighted` and WEIGHTED_CHUNK
_MODULE_OF = {
    "Q4_0": "q4_0",
    "Q4_1": "q4_0",
    "Q5_0": "q4_0",
    "Q5_1": "q4_0",
    "Q8_0": "q4_0",
    "Q2_K": "q2_k",
    "Q3_K": "q3_k",
    "Q4_K": "q4_k",
    "Q5_K": "q4_k",
    "Q6_K": "q6_k",
    "IQ4_NL": "iq4_nl",
    "IQ4_XS": "iq4_nl",
}
ENCODABLE = tuple(_MODULE_OF)
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
    run, chunk = _kernel(format_name, len(given) == 2), _chunk(format_name, len(given) == 2)
    whole = weights.size // chunk * chunk
    run(*(values[:whole] for values in given), out[: block.row_bytes(whole)])
    if whole < weights.size:
        # Kernels work on whole chunks of groups; blocks are independent, so zeros may fill the last one.
        padded = [np.zeros(chunk, np.float32) for _ in given]
        for values, short in zip(given, padded, strict=True):
            short[: weights.size - whole] = values[whole:]
        encoded = np.empty(block.row_bytes(chunk), np.uint8)
        run(*padded, encoded)
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
    counts = np.empty_like(weights)
    weigh_errors(weights, importance, how[0] or row, np.float32(how[1]), counts)
    return counts


def compile_encoder(format_name: str, is_weighted: bool = False) -> None:
    """Compile a format's encoder, or load it from the cache, so that the next call of `encode` starts at once.

    is_weighted  also the one for an importance matrix
    """
    for kind in _kinds(format_name, is_weighted):
        _kernel(format_name, kind)(*_smallest(format_name, kind))
    if is_weighted:
        weigh_errors(*(np.zeros(256, np.float32) for _ in range(2)), 256, np.float32(1), np.empty(256, np.float32))


def encoder_jobs(names: Sequence[str], *, is_weighted: bool = False) -> list[Job]:
    """How encoders are compiled.

    names        some of ENCODABLE
    is_weighted  also the ones for an importance matrix
    """
    long = [name for name in names if name.endswith("_K")]
    ordered = [*long[::2], *(name for name in names if name not in long), *long[1::2]]
    kept = {
        name: all(is_compiled(_kernel(name, kind), *_smallest(name, kind)) for kind in _kinds(name, is_weighted))
        for name in names
    }
    return [Job(name, __name__, compile_encoder.__name__, (name, is_weighted), kept[name]) for name in ordered]


def _kinds(format_name: str, is_weighted: bool) -> tuple[bool, ...]:
    """Whether the kernels of a format take importances: one never does, and a second does where wanted and there."""
    return (False, True) if is_weighted and format_name in _MEAN_SQUARES else (False,)


def _check(array: np.ndarray, dtype: np.dtype, name: str) -> None:
    if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(
            f"{name}: expected a writable, contiguous {dtype} array of one axis,"
            f" got {array.dtype} with shape {array.shape}"
        )


def _module(format_name: str) -> ModuleType:
    return importlib.import_module(f"pythia_gguf.kernels.{_MODULE_OF[format_name]}")


def _kernel(format_name: str, is_weighted: bool) -> Callable[..., None]:
    name = f"encode_{format_name.lower()}{'_weighted' if is_weighted else ''}"
    function: Callable[..., None] = getattr(_module(format_name), name)
    return function


def _chunk(format_name: str, is_weighted: bool) -> int:
    """Weights that a kernel takes at once."""
    n: int = getattr(_module(format_name), "WEIGHTED_CHUNK" if is_weighted else "CHUNK_WEIGHTS")
    return n


def _smallest(format_name: str, is_weighted: bool) -> list[np.ndarray]:
    """The smallest arguments that a kernel takes: one chunk."""
    n = _chunk(format_name, is_weighted)
    given = [np.zeros(n, np.float32) for _ in range(2 if is_weighted else 1)]
    return [*given, np.empty(FORMATS[format_name].row_bytes(n), np.uint8)]
