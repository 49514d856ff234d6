"""Matrix products with float32 activations: weights as formats/ decodes them, and plain numbers.

Knows no model; the interface is that of kernels/matmul.py. Each 32 columns are summed one after the other, then added
to the total: a chain short enough that the next one runs beside it, and the same for one token as for many.
"""

from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, u8_at
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import Layout
from pythia_gguf.kernels.words import as_floats, floats, fused, halves, no_floats, shorts, words

TILE = 8


@inlined
def _one(room, x, start, n_columns):
    """One token against an unpacked group, f32 [n_columns, 16]."""
    total = no_floats()
    for i in range(0, n_columns, 32):
        s = no_floats()
        for k in range(i, min(i + 32, n_columns)):
            s = fused(load16(room, k * 16), x[start + k], s)
        total = total + s
    return total


@inlined
def _eight(room, x, t, n_columns, out, at, stride):
    """Eight tokens against an unpacked group."""
    a = no_floats()
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    start = t * n_columns
    for i in range(0, n_columns, 32):
        p = no_floats()
        q, r, s, u, v, w, y = p, p, p, p, p, p, p
        for k in range(i, min(i + 32, n_columns)):
            z = load16(room, k * 16)
            p = fused(z, x[start + k], p)
            q = fused(z, x[start + n_columns + k], q)
            r = fused(z, x[start + 2 * n_columns + k], r)
            s = fused(z, x[start + 3 * n_columns + k], s)
            u = fused(z, x[start + 4 * n_columns + k], u)
            v = fused(z, x[start + 5 * n_columns + k], v)
            w = fused(z, x[start + 6 * n_columns + k], w)
            y = fused(z, x[start + 7 * n_columns + k], y)
        a = a + p
        b = b + q
        c = c + r
        d = d + s
        e = e + u
        f = f + v
        g = g + w
        h = h + y
    store(out, at, a)
    store(out, at + stride, b)
    store(out, at + 2 * stride, c)
    store(out, at + 3 * stride, d)
    store(out, at + 4 * stride, e)
    store(out, at + 5 * stride, f)
    store(out, at + 6 * stride, g)
    store(out, at + 7 * stride, h)


@inlined
def _unpacked_product(room, x, n_tokens, n_columns, out, at, stride):
    """All tokens against an unpacked group."""
    t = 0
    while t + TILE <= n_tokens:
        _eight(room, x, t, n_columns, out, at + t * stride, stride)
        t += TILE
    while t < n_tokens:
        store(out, at + t * stride, _one(room, x, t * n_columns, n_columns))
        t += 1


def block_product(format_name: str, layout: Layout) -> CKernel:
    """The product for a format of blocks."""
    columns, n_bytes, offset, has_min = layout.columns, layout.n_bytes, layout.offset, layout.has_min
    codes, scales, minima = layout.codes, layout.scales, layout.minima
    n_subs = columns // 32

    @inlined
    def put(room, k, code, scale, minimum):
        """Four columns of 16 rows."""
        for b in range(4):
            w = floats(((code >> (8 * b)) & 255) - offset) * scale
            if has_min:
                w = w - minimum
            store(room, (k + b) * 16, w)

    @inlined
    def unpack(data, start, n_columns, room):
        for block in range(n_columns // columns):
            at = start + block * n_bytes
            for sub in range(n_subs):
                k = block * columns + sub * 32
                c0, c1, c2, c3, c4, c5, c6, c7 = codes(data, at, sub)
                s0, s1 = scales(data, at, sub)
                m0, m1 = minima(data, at, sub)
                put(room, k, c0, s0, m0)
                put(room, k + 4, c1, s0, m0)
                put(room, k + 8, c2, s0, m0)
                put(room, k + 12, c3, s0, m0)
                put(room, k + 16, c4, s1, m1)
                put(room, k + 20, c5, s1, m1)
                put(room, k + 24, c6, s1, m1)
                put(room, k + 28, c7, s1, m1)

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = n_columns // columns * n_bytes
        data = u8_at(weights, last_group * group_bytes)
        given, result = f32_at(x, n_tokens * n_columns), f32_at(out, n_tokens * out_stride)
        room = f32_at(scratch, n_columns * 16)
        for group in range(first_group, last_group):
            unpack(data, group * group_bytes, n_columns, room)
            _unpacked_product(room, given, n_tokens, n_columns, result, group * 16, out_stride)

    product.__name__ = product.__qualname__ = f"product_float_{format_name.lower()}"
    return c_kernel(9)(product)


@inlined
def _f16(data, at):
    return halves(data, at)


@inlined
def _bf16(data, at):
    return as_floats(shorts(data, at) << 16)


@inlined
def _f32(data, at):
    return as_floats(words(data, at))


# Reader of 16 rows of one column, bytes of one weight.
_READERS = {"F16": (_f16, 2), "BF16": (_bf16, 2), "F32": (_f32, 4)}


def plain_product(format_name: str) -> CKernel:
    """The product for F16, BF16 or F32; raises ValueError for another format."""
    if format_name not in _READERS:
        raise ValueError(f"no product for format {format_name}")
    read, n_bytes = _READERS[format_name]
    step = 16 * n_bytes

    @inlined
    def direct(data, start, x, first, n_columns):
        """One token against a group, from packed data."""
        total = no_floats()
        for i in range(0, n_columns, 32):
            s = no_floats()
            for k in range(i, min(i + 32, n_columns)):
                s = fused(read(data, start + k * step), x[first + k], s)
            total = total + s
        return total

    def product(weights, x, out, n_tokens, n_columns, out_stride, first_group, last_group, scratch):
        group_bytes = (n_columns + 31) // 32 * 32 * step
        data = u8_at(weights, last_group * group_bytes)
        given, result = f32_at(x, n_tokens * n_columns), f32_at(out, n_tokens * out_stride)
        room = f32_at(scratch, n_columns * 16)
        for group in range(first_group, last_group):
            start = group * group_bytes
            if n_tokens >= TILE // 2:
                for k in range(n_columns):
                    store(room, k * 16, read(data, start + k * step))
                _unpacked_product(room, given, n_tokens, n_columns, result, group * 16, out_stride)
            else:
                for t in range(n_tokens):
                    store(result, t * out_stride + group * 16, direct(data, start, given, t * n_columns, n_columns))

    product.__name__ = product.__qualname__ = f"product_float_{format_name.lower()}"
    return c_kernel(9)(product)
