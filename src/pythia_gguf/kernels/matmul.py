"""Matrix products with packed weights: every output by one sequence of float operations, whatever else is computed.

Knows no model. A kernel takes groups of 16 rows and any number of tokens. Few tokens: codes go from memory straight into the
dot products. Many: a group is unpacked once into the thread's scratch, then tokens pass by in tiles of eight. Both do, for
32 columns after 32 columns, the same operations in the same order on the same numbers.

    int8     total += float(sum of code * q - offset * sum of q) * (scale * d) - minimum * (d * sum of q)
    float32  total += sum over 32 columns of weight * x, one after the other, rounded once each where there is FMA
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from pythia_gguf.kernels.activations import quantize_activations
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.matmul_float import block_product, plain_product
from pythia_gguf.kernels.memory import f32_at, i32_at, u8_at
from pythia_gguf.kernels.packed import Packed
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import LAYOUTS, Layout
from pythia_gguf.kernels.words import dot4, floats, no_floats, no_words

# From here on unpacking a group once is cheaper than unpacking it for every token.
MANY_TOKENS = 4
TILE = 8


def matmul_address(format_name: str, activations: str) -> int:
    """The C function for a format and "int8" or "float32" activations, compiled when it is first asked for.

    f(weights, x, d, sums, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch), all int64:
    addresses of packed data, of x (q or f32 [T, n_columns]), d, sums (activations.py; 0 for float32), of
    out f32 [T, out_stride >= 16 * groups], and of scratch of `scratch_bytes(n_columns)`, 64-byte aligned
    """
    return _kernel(format_name, activations).address


def quantize_address() -> int:
    """The C function that makes int8 activations; see activations.py."""
    return quantize_activations.address


def scratch_bytes(n_columns: int) -> int:
    """Scratch that a product over so many columns needs."""
    return 64 * (-(-n_columns // 256) * 256)


def quantize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 activations of f32 [T, K]: codes i8 [T, K], scales f32 [T, K / 32], sums i32 [T, K / 16]; ValueError for other shapes."""
    n_tokens, n_columns = x.shape
    if n_columns % 32 or x.dtype != np.float32:
        raise ValueError(f"expected float32 rows of whole 32, got {x.dtype} {x.shape}")
    x = np.ascontiguousarray(x)
    q = np.empty(x.shape, np.int8)
    d = np.empty((n_tokens, n_columns // 32), np.float32)
    sums = np.empty((n_tokens, n_columns // 16), np.int32)
    _call(quantize_address(), x, q, d, sums, n_columns, 0, n_tokens)
    return q, d, sums


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
    given: tuple[np.ndarray | int, ...] = (np.ascontiguousarray(x), 0, 0)
    if activations == "int8":
        given = quantize(x)
    scratch = np.empty(scratch_bytes(packed.n_columns) + 64, np.uint8)
    at = scratch.ctypes.data + (-scratch.ctypes.data % 64)
    sizes = (x.shape[0], packed.n_columns, out.shape[1], groups.start, groups.stop)
    _call(matmul_address(packed.format, activations), packed.data, *given, out, *sizes, at)
    return out


def _call(address: int, *arguments: np.ndarray | int) -> None:
    numbers = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(address)(*numbers)


@cache
def _kernel(format_name: str, activations: str) -> CKernel:
    if activations == "int8":
        if format_name not in LAYOUTS:
            raise ValueError(f"{format_name} has no int8 product")
        return _int8_kernel(format_name, LAYOUTS[format_name])
    if format_name in LAYOUTS:
        return block_product(format_name, LAYOUTS[format_name])
    return plain_product(format_name)


def _block_step(layout: Layout):
    """What 32 columns add to the total of one token, for 16 rows."""
    offset, n_scales, has_min = layout.offset, layout.n_scales, layout.has_min

    @inlined
    def step(total, c0, c1, c2, c3, c4, c5, c6, c7, s0, s1, m0, m1, q, at, d, sum0, sum1):
        a = dot4(no_words(), c0, q, at)
        a = dot4(a, c1, q, at + 1)
        a = dot4(a, c2, q, at + 2)
        a = dot4(a, c3, q, at + 3)
        if n_scales == 1:
            a = dot4(a, c4, q, at + 4)
            a = dot4(a, c5, q, at + 5)
            a = dot4(a, c6, q, at + 6)
            a = dot4(a, c7, q, at + 7)
            if offset:
                a = a - offset * (sum0 + sum1)
            total = total + floats(a) * (s0 * d)
            if has_min:
                total = total - m0 * (d * np.float32(sum0 + sum1))
            return total
        b = dot4(no_words(), c4, q, at + 4)
        b = dot4(b, c5, q, at + 5)
        b = dot4(b, c6, q, at + 6)
        b = dot4(b, c7, q, at + 7)
        if offset:
            a = a - offset * sum0
            b = b - offset * sum1
        total = total + floats(a) * (s0 * d)
        total = total + floats(b) * (s1 * d)
        if has_min:
            total = total - m0 * (d * np.float32(sum0))
            total = total - m1 * (d * np.float32(sum1))
        return total

    return step


def _int8_kernel(format_name: str, layout: Layout) -> CKernel:
    columns, n_bytes = layout.columns, layout.n_bytes
    codes, scales, minima = layout.codes, layout.scales, layout.minima
    n_subs = columns // 32
    n_scales, has_min = layout.n_scales, layout.has_min
    step = _block_step(layout)

    @inlined
    def direct(data, start, q, d, sums, n_columns):
        """One token against one group, from packed data."""
        total = no_floats()
        for block in range(n_columns // columns):
            at = start + block * n_bytes
            for sub in range(n_subs):
                i = block * n_subs + sub
                c0, c1, c2, c3, c4, c5, c6, c7 = codes(data, at, sub)
                s0, s1 = scales(data, at, sub)
                m0, m1 = minima(data, at, sub)
                total = step(
                    total, c0, c1, c2, c3, c4, c5, c6, c7, s0, s1, m0, m1, q, i * 8, d[i], sums[2 * i], sums[2 * i + 1]
                )
        return total

    @inlined
    def unpack(data, start, n_columns, room, factors):
        """A group's codes into `room`, 512 bytes for 32 columns; its scales and minima into `factors`, 64 floats."""
        for block in range(n_columns // columns):
            at = start + block * n_bytes
            for sub in range(n_subs):
                i = block * n_subs + sub
                c0, c1, c2, c3, c4, c5, c6, c7 = codes(data, at, sub)
                store(room, i * 128, c0)
                store(room, i * 128 + 16, c1)
                store(room, i * 128 + 32, c2)
                store(room, i * 128 + 48, c3)
                store(room, i * 128 + 64, c4)
                store(room, i * 128 + 80, c5)
                store(room, i * 128 + 96, c6)
                store(room, i * 128 + 112, c7)
                s0, s1 = scales(data, at, sub)
                store(factors, i * 64, s0)
                if n_scales == 2:
                    store(factors, i * 64 + 16, s1)
                if has_min:
                    m0, m1 = minima(data, at, sub)
                    store(factors, i * 64 + 32, m0)
                    store(factors, i * 64 + 48, m1)

    @inlined
    def from_room(total, room, factors, i, q, q_start, d, d_start, sums, sums_start):
        """What 32 columns of an unpacked group add to one token."""
        return step(
            total,
            load16(room, i * 128),
            load16(room, i * 128 + 16),
            load16(room, i * 128 + 32),
            load16(room, i * 128 + 48),
            load16(room, i * 128 + 64),
            load16(room, i * 128 + 80),
            load16(room, i * 128 + 96),
            load16(room, i * 128 + 112),
            load16(factors, i * 64),
            load16(factors, i * 64 + 16),
            load16(factors, i * 64 + 32),
            load16(factors, i * 64 + 48),
            q,
            q_start + i * 8,
            d[d_start + i],
            sums[sums_start + 2 * i],
            sums[sums_start + 2 * i + 1],
        )

    @inlined
    def eight(room, factors, q, d, sums, n_columns, t, out, out_start, stride):
        """Eight tokens against an unpacked group."""
        a = no_floats()
        b, c, e, f, g, h, k = a, a, a, a, a, a, a
        n, w, u = n_columns // 32, n_columns // 4, n_columns // 16
        for i in range(n):
            a = from_room(a, room, factors, i, q, t * w, d, t * n, sums, t * u)
            b = from_room(b, room, factors, i, q, (t + 1) * w, d, (t + 1) * n, sums, (t + 1) * u)
            c = from_room(c, room, factors, i, q, (t + 2) * w, d, (t + 2) * n, sums, (t + 2) * u)
            e = from_room(e, room, factors, i, q, (t + 3) * w, d, (t + 3) * n, sums, (t + 3) * u)
            f = from_room(f, room, factors, i, q, (t + 4) * w, d, (t + 4) * n, sums, (t + 4) * u)
            g = from_room(g, room, factors, i, q, (t + 5) * w, d, (t + 5) * n, sums, (t + 5) * u)
            h = from_room(h, room, factors, i, q, (t + 6) * w, d, (t + 6) * n, sums, (t + 6) * u)
            k = from_room(k, room, factors, i, q, (t + 7) * w, d, (t + 7) * n, sums, (t + 7) * u)
        store(out, out_start, a)
        store(out, out_start + stride, b)
        store(out, out_start + 2 * stride, c)
        store(out, out_start + 3 * stride, e)
        store(out, out_start + 4 * stride, f)
        store(out, out_start + 5 * stride, g)
        store(out, out_start + 6 * stride, h)
        store(out, out_start + 7 * stride, k)

    def product(weights, x, d, sums, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = n_columns // columns * n_bytes
        data = u8_at(weights, last_group * group_bytes)
        q = i32_at(x, n_tokens * n_columns // 4)
        scale = f32_at(d, n_tokens * n_columns // 32)
        sum_of = i32_at(sums, n_tokens * n_columns // 16)
        result = f32_at(out, n_tokens * out_stride)
        room = i32_at(scratch, n_columns * 4)
        factors = f32_at(scratch + n_columns * 16, n_columns * 2)
        for group in range(first_group, last_group):
            start = group * group_bytes
            t = 0
            if n_tokens >= MANY_TOKENS:
                unpack(data, start, n_columns, room, factors)
                while t + TILE <= n_tokens:
                    at = t * out_stride + group * 16
                    eight(room, factors, q, scale, sum_of, n_columns, t, result, at, out_stride)
                    t += TILE
                while t < n_tokens:
                    total = no_floats()
                    for i in range(n_columns // 32):
                        total = from_room(
                            total, room, factors, i, q, t * n_columns // 4, scale, t * n_columns // 32, sum_of, t * n_columns // 16
                        )
                    store(result, t * out_stride + group * 16, total)
                    t += 1
            while t < n_tokens:
                token_q = q[t * n_columns // 4 : (t + 1) * n_columns // 4]
                token_d = scale[t * n_columns // 32 : (t + 1) * n_columns // 32]
                token_sums = sum_of[t * n_columns // 16 : (t + 1) * n_columns // 16]
                store(result, t * out_stride + group * 16, direct(data, start, token_q, token_d, token_sums, n_columns))
                t += 1

    product.__name__ = product.__qualname__ = f"product_int8_{format_name.lower()}"
    return c_kernel(11)(product)
