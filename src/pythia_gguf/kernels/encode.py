"""Weights in, bytes of a format out: checks every buffer, then calls the kernel.

Knows nothing of files, tensors or threads. Kernels have no bounds checks: the comparison of lengths here is the
boundary of memory safety, and kernels are called from nowhere else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.compiling import Job, compile_all
from pythia_gguf.kernels.jit import is_compiled

# format -> module of this package that has `encode_<format>` and CHUNK_WEIGHTS
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


def encode(format_name: str, weights: np.ndarray, out: np.ndarray) -> None:
    """Encode weights into bytes, the same bytes as llama.cpp 0c1e57098 makes.

    format_name  one of ENCODABLE
    weights      f32 [n]  finite, C-contiguous, writable; n a multiple of the format's block
    out          u8  [n / block_weights * block_bytes]  C-contiguous
    Raises ValueError when a buffer does not fit; nothing is written then.
    """
    block = FORMATS[format_name]
    _check(weights, np.dtype(np.float32), "weights")
    _check(out, np.dtype(np.uint8), "out")
    if out.size != block.row_bytes(weights.size):
        raise ValueError(
            f"{format_name}: {weights.size} weights need {block.row_bytes(weights.size)} bytes, got {out.size}"
        )
    module = _module(format_name)
    whole = weights.size // module.CHUNK_WEIGHTS * module.CHUNK_WEIGHTS
    run = _kernel(format_name)
    run(weights[:whole], out[: block.row_bytes(whole)])
    if whole < weights.size:
        # Kernels work on whole chunks of groups; blocks are independent, so zeros may fill the last one.
        padded = np.zeros(module.CHUNK_WEIGHTS, np.float32)
        padded[: weights.size - whole] = weights[whole:]
        encoded = np.empty(block.row_bytes(padded.size), np.uint8)
        run(padded, encoded)
        out[block.row_bytes(whole) :] = encoded[: block.row_bytes(weights.size - whole)]


def compile_encoder(format_name: str) -> None:
    """Compile a format's encoder, or load it from the cache, so that the next call of `encode` starts at once."""
    _kernel(format_name)(*_smallest(format_name))


def compile_encoders(names: Sequence[str], advance: Callable[[str, int], None] = lambda name, n: None) -> None:
    """Compile encoders, or load them from the cache; `advance` hears of each that is ready.

    names  some of ENCODABLE
    """
    long = [name for name in names if name.endswith("_K")]
    ordered = [*long[::2], *(name for name in names if name not in long), *long[1::2]]
    arguments = {name: _smallest(name) for name in names}
    compile_all(
        [
            Job(name, __name__, compile_encoder.__name__, (name,), is_compiled(_kernel(name), *arguments[name]))
            for name in ordered
        ],
        advance,
    )


def _check(array: np.ndarray, dtype: np.dtype, name: str) -> None:
    if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(
            f"{name}: expected a writable, contiguous {dtype} array of one axis,"
            f" got {array.dtype} with shape {array.shape}"
        )


def _module(format_name: str) -> ModuleType:
    return importlib.import_module(f"pythia_gguf.kernels.{_MODULE_OF[format_name]}")


def _kernel(format_name: str) -> Callable[[np.ndarray, np.ndarray], None]:
    function: Callable[[np.ndarray, np.ndarray], None] = getattr(_module(format_name), f"encode_{format_name.lower()}")
    return function


def _smallest(format_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bytes of one chunk."""
    n = _module(format_name).CHUNK_WEIGHTS
    return np.zeros(n, np.float32), np.empty(FORMATS[format_name].row_bytes(n), np.uint8)
