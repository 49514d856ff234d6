"""Matrix products with packed weights: every output by one sequence of float operations, whatever else is computed.

A kernel takes groups of 16 rows and any number of tokens: those with int8 activations are in kernels/matmul_int8.py,
those with float32 activations in kernels/matmul_float.py, those with sums of two bfloat16 in kernels/matmul_bf16x3.py.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from functools import cache

import numpy as np

from pythia_gguf.kernels.activations import WIDE_WORDS, quantize_activations, quantize_activations_wide
from pythia_gguf.kernels.amx import has_tiles
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.jit import CKernel
from pythia_gguf.kernels.matmul_bf16x3 import (
    BLOCK_GROUPS,
    RECORD_BYTES,
    TOKENS,
    bf16x3_product,
    bf16x3_scratch_bytes,
    split_activations,
)
from pythia_gguf.kernels.matmul_float import (
    block_product,
    block_unpacker,
    float_scratch_bytes,
    plain_product,
    plain_unpacker,
)
from pythia_gguf.kernels.matmul_int8 import int8_product, int8_scratch_bytes, takes_int16
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.packed import PackedMatrix
from pythia_gguf.kernels.unpack import LAYOUTS

# The kernels that turn float32 rows into the form that products multiply.
_QUANTIZERS = {"int8": quantize_activations, "float32": None, "bf16x3": split_activations}
# Bytes of a record of 32 columns of one row, for the larger kind.
_RECORD_BYTES = max(WIDE_WORDS * 4, RECORD_BYTES // TOKENS)


def matmul_address(format_name: str, activations: str) -> int:
    """The C function for a format and one of `known_activations`, compiled when it is first asked for.

    f(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch), all int64: addresses of
    packed data, of x f32 [T, n_columns] or its quantizer's records, of out f32 [T, out_stride >= 16 * groups], and of
    scratch of `product_scratch(n_tokens)` bytes, 64-byte aligned
    """
    return _kernel(format_name, activations).address


def product_jobs(formats: Iterable[str], activations: str) -> list[Job]:
    """Jobs that compile the products of weights in these formats."""
    pairs = [(name, product_activations(name, activations)) for name in sorted(formats)]
    return [Job(pair[0], __name__, matmul_address.__name__, pair, _kernel(*pair).is_kept) for pair in pairs]


def known_activations() -> tuple[str, ...]:
    """The activations that this machine has products for, the usual ones first."""
    return tuple(name for name in _QUANTIZERS if name != "bf16x3" or has_tiles())


def product_activations(format_name: str, asked: str) -> str:
    """The activations that weights in a format take: weights without blocks take float32 instead of int8."""
    return "float32" if asked == "int8" and format_name not in LAYOUTS else asked


def quantizer_address(format_name: str, activations: str) -> int:
    """The C function that turns float32 rows into the form that a product multiplies; 0 where it takes float32.

    f(x, records, n_columns, first, n, t, n_tokens), see `quantize_activations` and `split_activations`
    """
    quantizer = _quantizer(format_name, activations)
    return 0 if quantizer is None else quantizer.address


@cache  # what the compiler is asked here takes its lock, which a forked child may find taken
def _quantizer(format_name: str, activations: str) -> CKernel | None:
    if activations == "int8" and format_name in LAYOUTS and takes_int16(LAYOUTS[format_name]):
        return quantize_activations_wide
    return _QUANTIZERS[activations]


def quantizer_jobs(formats: Iterable[str], activations: str) -> list[Job]:
    """Jobs that compile these functions for weights in these formats."""
    pairs = [(name, product_activations(name, activations)) for name in sorted(formats)]
    made = {quantizer: pair for pair in pairs if (quantizer := _quantizer(*pair)) is not None}
    return [Job(pair[1], __name__, quantizer_address.__name__, pair, k.is_kept) for k, pair in made.items()]


def piece_groups(activations: str, n_groups: int, n_threads: int) -> int:
    """An even number of groups for one call, small enough to keep all threads busy to the end."""
    if activations == "bf16x3":
        return max(2, min(BLOCK_GROUPS, n_groups // (2 * n_threads) // 2 * 2))
    return max(2, n_groups // (8 * n_threads) // 2 * 2)


def product_scratch(n_tokens: int) -> int:
    """Scratch that a product of so many tokens needs, in bytes."""
    return max(float_scratch_bytes(n_tokens), int8_scratch_bytes(n_tokens), bf16x3_scratch_bytes(n_tokens))


def new_records(n_tokens: int, n_columns: int) -> np.ndarray:
    """Zero-filled memory for the records that any quantizer makes of so many rows."""
    return aligned(_records_shape(n_tokens, n_columns), np.uint8)


def records_bytes(n_tokens: int, n_columns: int) -> int:
    """Size of `new_records`."""
    return math.prod(_records_shape(n_tokens, n_columns))


def _records_shape(n_tokens: int, n_columns: int) -> tuple[int, int, int]:
    return -(-n_tokens // 32) * 32, -(-n_columns // 32), _RECORD_BYTES


def matmul(packed: PackedMatrix, x: np.ndarray, activations: str, groups: range | None = None) -> np.ndarray:
    """x times the transposed weights: f32 [T, 16 * n_groups], where columns past n_rows are zeros.

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
    if activations != "float32" and x.shape[1] % 32:
        raise ValueError(f"{activations} activations need whole 32 columns, got {x.shape[1]}")
    given, quantizer = np.ascontiguousarray(x), quantizer_address(packed.format, activations)
    if quantizer:
        rows, given = given, new_records(*x.shape)
        for t in range(len(rows)):
            _call(quantizer, rows[t], given, x.shape[1], 0, x.shape[1], t, len(rows))
    scratch = aligned((product_scratch(x.shape[0]),), np.uint8)
    sizes = (x.shape[0], packed.n_columns, out.shape[1], groups.start, groups.stop)
    _call(matmul_address(packed.format, activations), packed.data, given, out, *sizes, scratch)
    return out


def _call(address: int, *arguments: np.ndarray | int) -> None:
    numbers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(address)(*numbers)


@cache
def _kernel(format_name: str, activations: str) -> CKernel:
    layout = LAYOUTS.get(format_name)
    if activations == "int8":
        if layout is None:
            raise ValueError(f"{format_name} has no int8 product")
        return int8_product(format_name, layout)
    if activations == "bf16x3":
        if not has_tiles():
            raise ValueError("this processor has no tiles of bfloat16")
        return bf16x3_product(format_name, block_unpacker(layout) if layout else plain_unpacker(format_name))
    return block_product(format_name, layout) if layout else plain_product(format_name)
