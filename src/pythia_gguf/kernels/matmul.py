"""Matrix products with packed weights: every output by one sequence of float operations, whatever else is computed.

Knows no model. A kernel takes groups of 16 rows and any number of tokens: those with int8 activations are in
kernels/matmul_int8.py, those with float32 activations in kernels/matmul_float.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache

import numpy as np

from pythia_gguf.kernels.activations import RECORD_WORDS, quantize_activations
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.jit import CKernel
from pythia_gguf.kernels.matmul_float import block_product, float_scratch_bytes, plain_product
from pythia_gguf.kernels.matmul_int8 import int8_product, int8_scratch_bytes
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.packed import Packed
from pythia_gguf.kernels.unpack import LAYOUTS


def matmul_address(format_name: str, activations: str) -> int:
    """The C function for a format and "int8" or "float32" activations, compiled when it is first asked for.

    f(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch), all int64: addresses of
    packed data, of x (records of activations.py, or f32 [T, n_columns]), of out f32 [T, out_stride >= 16 * groups], of
    scratch of `product_scratch(n_tokens)`, 64-byte aligned
    """
    return _kernel(format_name, activations).address


def product_jobs(formats: Iterable[str], activations: str) -> list[Job]:
    """How the products of weights in these formats are compiled."""
    pairs = [(name, activations if name in LAYOUTS else "float32") for name in sorted(formats)]
    return [Job(pair[0], __name__, matmul_address.__name__, pair, _kernel(*pair).is_kept) for pair in pairs]


def quantize_address() -> int:
    """The C function that makes int8 activations; see activations.py."""
    return quantize_activations.address


def product_scratch(n_tokens: int) -> int:
    """Scratch that a product of so many tokens needs, in bytes."""
    return max(float_scratch_bytes(n_tokens), int8_scratch_bytes(n_tokens))


def quantize(x: np.ndarray) -> np.ndarray:
    """int8 activations of f32 [T, K]: records i32 [T, K / 32, RECORD_WORDS]; ValueError for other shapes."""
    if x.ndim != 2 or x.shape[1] % 32 or x.dtype != np.float32:
        raise ValueError(f"expected float32 rows of whole 32, got {x.dtype} {x.shape}")
    x = np.ascontiguousarray(x)
    records = aligned((x.shape[0], x.shape[1] // 32, RECORD_WORDS), np.int32)
    _call(quantize_address(), x, records, x.shape[1], 0, x.shape[0], x.shape[0])
    return records


def matmul(packed: Packed, x: np.ndarray, activations: str, groups: range | None = None) -> np.ndarray:
    """x times the transposed weights: f32 [T, 16 * n_groups], of which columns past n_rows are zeros.

    x       f32 [T, n_columns]
    groups  only these groups of 16 rows; the rest of the result is zeros
    Raises  ValueError for shapes that do not fit
    """
    if x.ndim != 2 or x.shape[1] != packed.n_columns or x.dtype != np.float32:
        raise ValueError(f"expected float32 [T, {packed.n_columns}], got {x.dtype} {x.shape}")
    groups = range(packed.n_groups) if groups is None else groups
    if groups.step != 1 or groups.start < 0 or groups.stop > packed.n_groups:
        raise ValueError(f"{groups} of {packed.n_groups} groups")
    out = np.zeros((x.shape[0], packed.n_groups * 16), np.float32)
    given = quantize(x) if activations == "int8" else np.ascontiguousarray(x)
    scratch = aligned((product_scratch(x.shape[0]),), np.uint8)
    sizes = (x.shape[0], packed.n_columns, out.shape[1], groups.start, groups.stop)
    _call(matmul_address(packed.format, activations), packed.data, given, out, *sizes, scratch)
    return out


def _call(address: int, *arguments: np.ndarray | int) -> None:
    numbers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(address)(*numbers)


@cache
def _kernel(format_name: str, activations: str) -> CKernel:
    if activations == "int8":
        if format_name not in LAYOUTS:
            raise ValueError(f"{format_name} has no int8 product")
        return int8_product(format_name, LAYOUTS[format_name])
    if format_name in LAYOUTS:
        return block_product(format_name, LAYOUTS[format_name])
    return plain_product(format_name)
