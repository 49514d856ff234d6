"""The ops of a step: LayerNorm, inputs of products, products, attention.

An op is a row of numbers, most of them addresses; the builder of the row has checked every size. kernels/op_words.py
says what the words of a row mean.
"""

from collections.abc import Callable

import numpy as np

from pythia_gguf.kernels.attention import attend_eight, attend_one, keep, rotate
from pythia_gguf.kernels.curves import gelu_erf, gelu_tanh
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined
from pythia_gguf.kernels.layer_norm import normalize
from pythia_gguf.kernels.memory import call_at, f32_at, i32_at, i64_at, u8_at, u16_at
from pythia_gguf.kernels.op_words import (
    ALL_ROWS,
    ATTENTION,
    GATHERED_ROWS,
    GELU_ERF,
    GELU_TANH,
    INPUT,
    N_SEGMENTS,
    N_THREADS,
    N_TOKENS,
    N_WANTED,
    NORM,
    OP_WORDS,
    PLAIN,
    PRODUCT,
    SCRATCH,
    SCRATCH_BYTES,
    SEGMENT,
    SEGMENT_WORDS,
    SEGMENTS,
    STATE,
    STEP_WORDS,
    WANTED,
)
from pythia_gguf.kernels.simd import LANES, load, load16, store
from pythia_gguf.kernels.threads import FIRST_TAKEN, STATE_WORDS, take
from pythia_gguf.kernels.words import prefetch

# How far ahead kernels ask for the next rows.
ROWS_AHEAD = 4


@inlined
def float_of(word):
    """A float32 whose bits are the low half of a word."""
    return np.int32(word).view(np.float32)


@inlined
def quantize(quantizer, x, records, n_columns, first, n, t, n_tokens):
    """Write columns first .. first + n - 1 of row t, f32 [n] at an address, in the form that a product multiplies."""
    call_at(quantizer, (x, records, n_columns, first, n, np.int64(t), n_tokens))


@inlined
def rows_of(which, step):
    """Rows of one of ALL_ROWS, GATHERED_ROWS, WANTED_ROWS."""
    return step[N_TOKENS] if which == ALL_ROWS else step[N_WANTED]


@c_kernel(3)
def norm_op(op_address, step_address, thread):
    """See `NormOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride = op[NORM.n], op[NORM.stride]
    n_rows = rows_of(op[NORM.rows], step)
    wanted = i64_at(step[WANTED], step[N_WANTED])
    weight, bias = f32_at(op[NORM.weight], n), f32_at(op[NORM.bias], n)
    eps = float_of(op[NORM.eps])
    out = f32_at(op[NORM.out], n_rows * n)
    own = step[SCRATCH] + thread * step[SCRATCH_BYTES]
    for t in range((thread + op[NORM.begins]) % step[N_THREADS], n_rows, step[N_THREADS]):
        row = (wanted[t] if op[NORM.rows] == GATHERED_ROWS else t) * stride * 4
        x = f32_at(op[NORM.x] + row, stride)
        if op[NORM.added_a] or op[NORM.total]:
            total = f32_at(op[NORM.total] + t * stride * 4 if op[NORM.total] else own, stride)
            a = f32_at(op[NORM.added_a] + row, stride)
            b = f32_at(op[NORM.added_b] + row, stride)
            for i in range(0, stride, LANES):
                v = load(x, i)
                if op[NORM.added_a]:
                    v = v + load(a, i)
                if op[NORM.added_b]:
                    v = v + load(b, i)
                store(total, i, v)
            x = total
        normalize(x, 0, n, weight, bias, eps, out, t * n)
        if op[NORM.quantizer]:
            quantize(op[NORM.quantizer], op[NORM.out] + t * n * 4, op[NORM.records], n, np.int64(0), n, t, n_rows)


@c_kernel(3)
def input_op(op_address, step_address, thread):
    """See `InputOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, n_rows = op[INPUT.n], rows_of(op[INPUT.rows], step)
    wanted = i64_at(step[WANTED], step[N_WANTED])
    for t in range(thread, n_rows, step[N_THREADS]):
        if op[INPUT.out] != op[INPUT.x]:
            row = wanted[t] if op[INPUT.rows] == GATHERED_ROWS else t
            x, out = f32_at(op[INPUT.x] + row * op[INPUT.stride] * 4, n), f32_at(op[INPUT.out] + t * n * 4, n)
            for i in range(n):
                out[i] = x[i]
        if op[INPUT.quantizer]:
            quantize(op[INPUT.quantizer], op[INPUT.out] + t * n * 4, op[INPUT.records], n, np.int64(0), n, t, n_rows)


@inlined
def _finish(op, n_tokens, first, last):
    """Apply bias and activation to columns 16 first .. 16 last - 1 of a product, and make their int8 form."""
    stride, after, n = op[PRODUCT.stride], op[PRODUCT.after], (last - first) * 16
    out = f32_at(op[PRODUCT.out], n_tokens * stride)
    has_bias, bias = op[PRODUCT.bias] != 0, f32_at(op[PRODUCT.bias], stride)
    for t in range(n_tokens):
        for j in range(first * 16, last * 16, LANES):
            at = t * stride + j
            v = load(out, at)
            if has_bias:
                v = v + load(bias, j)
            if after == GELU_ERF:
                v = gelu_erf(v)
            elif after == GELU_TANH:
                v = gelu_tanh(v)
            store(out, at, v)
        if op[PRODUCT.quantizer]:
            quantize(
                op[PRODUCT.quantizer],
                op[PRODUCT.out] + (t * stride + first * 16) * 4,
                op[PRODUCT.records],
                stride,
                first * 16,
                n,
                t,
                n_tokens,
            )


@c_kernel(3)
def product_op(op_address, step_address, thread):
    """See `ProductOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n_tokens = rows_of(op[PRODUCT.rows], step)
    state = i64_at(step[STATE], STATE_WORDS)
    scratch = step[SCRATCH] + thread * step[SCRATCH_BYTES]
    if n_tokens == 0:
        return
    while True:
        first = take(state, op[PRODUCT.counter]) * op[PRODUCT.piece_groups]
        if first >= op[PRODUCT.n_groups]:
            return
        last = min(first + op[PRODUCT.piece_groups], op[PRODUCT.n_groups])
        call_at(
            op[PRODUCT.matmul],
            (
                op[PRODUCT.weights],
                op[PRODUCT.x],
                op[PRODUCT.out],
                n_tokens,
                op[PRODUCT.n_columns],
                op[PRODUCT.stride],
                first,
                last,
                scratch,
            ),
        )
        if op[PRODUCT.bias] or op[PRODUCT.after] != PLAIN or op[PRODUCT.quantizer]:
            _finish(op, n_tokens, first, last)


@inlined
def keys_of(op, head):
    """The offset of a head's keys in a tile."""
    return head * op[ATTENTION.head_dim] * LANES


@inlined
def values_of(op, head):
    """The offset of a head's values in a tile."""
    return (op[ATTENTION.n_heads] * op[ATTENTION.head_dim] + head * op[ATTENTION.width]) * LANES


@inlined
def keep_segment(op, segment, head, cached, tiles, turned, scratch):
    """Turn queries and keys of a segment's tokens, and put keys and values into the cache."""
    head_dim, width, stride, n_rotated = (
        op[ATTENTION.head_dim],
        op[ATTENTION.width],
        op[ATTENTION.stride],
        op[ATTENTION.n_rotated],
    )
    hidden = head_dim * op[ATTENTION.n_heads]
    cos_sin = f32_at(op[ATTENTION.cos_sin], op[ATTENTION.n_context] * n_rotated)
    words, whole = i32_at(scratch, LANES), u8_at(op[ATTENTION.qkv], 64)
    for t in range(segment[SEGMENT.n_tokens]):
        # Rows of a product lie far apart, and may be in the cache of another processor.
        ahead = ((segment[SEGMENT.first] + t + ROWS_AHEAD) * stride + head * head_dim) * 4
        for part in range(3):
            for line in range(0, head_dim * 4, 64):
                prefetch(whole, ahead + part * hidden * 4 + line)
        qkv = f32_at(op[ATTENTION.qkv] + (segment[SEGMENT.first] + t) * stride * 4, stride)
        p = segment[SEGMENT.position] + t
        rotate(qkv, head * head_dim, cos_sin, p * n_rotated, n_rotated)
        rotate(qkv, hidden + head * head_dim, cos_sin, p * n_rotated, n_rotated)
        key = tiles[p // LANES] + keys_of(op, head) + p % LANES
        value = tiles[p // LANES] + values_of(op, head) + p % LANES * width
        keep(qkv, hidden + head * head_dim, head_dim, words, turned, cached, key, LANES)
        keep(qkv, 2 * hidden + head * head_dim, head_dim, words, turned, cached, value, 1)


@inlined
def give(op, t, head, mixed, start, n_tokens):
    """Write the result of a head for a token into the output, and into its int8 form."""
    head_dim = op[ATTENTION.head_dim]
    hidden = head_dim * op[ATTENTION.n_heads]
    out = f32_at(op[ATTENTION.out] + t * hidden * 4, hidden)
    whole = head_dim - head_dim % 16
    for i in range(0, whole, 16):
        store(out, head * head_dim + i, load16(mixed, start + i))
    for i in range(whole, head_dim):
        out[head * head_dim + i] = mixed[start + i]
    if op[ATTENTION.quantizer]:
        at = op[ATTENTION.out] + (t * hidden + head * head_dim) * 4
        quantize(op[ATTENTION.quantizer], at, op[ATTENTION.records], hidden, head * head_dim, head_dim, t, n_tokens)


@inlined
def _attend_segment(op, step, segment, head, cached, tiles, turned, scratch):
    """Attend with one head for all tokens of a segment, eight at a time; the last eight may overlap those before."""
    head_dim, width, stride, n_context = (
        op[ATTENTION.head_dim],
        op[ATTENTION.width],
        op[ATTENTION.stride],
        op[ATTENTION.n_context],
    )
    factors, mixed = f32_at(scratch, LANES), f32_at(scratch + LANES * 4, 8 * width)
    scores = f32_at(scratch + (LANES + 8 * width) * 4, 8 * n_context)
    scale = float_of(op[ATTENTION.scale])
    keys, values = keys_of(op, head), values_of(op, head)
    keep_segment(op, segment, head, cached, tiles, turned, scratch)
    q = f32_at(op[ATTENTION.qkv] + segment[SEGMENT.first] * stride * 4, segment[SEGMENT.n_tokens] * stride)
    t, n_tokens = 0, step[N_TOKENS]
    while segment[SEGMENT.n_tokens] >= 8 and t + 2 < segment[SEGMENT.n_tokens]:
        t = min(t, segment[SEGMENT.n_tokens] - 8)
        n, at = segment[SEGMENT.position] + t + 1, t * stride + head * head_dim
        attend_eight(
            q, at, stride, head_dim, width, cached, tiles, keys, values, n, scale, scores, n_context, factors, mixed
        )
        for j in range(8):
            give(op, segment[SEGMENT.first] + t + j, head, mixed, j * width, n_tokens)
        t += 8
    while t < segment[SEGMENT.n_tokens]:
        at = t * stride + head * head_dim
        n = segment[SEGMENT.position] + t + 1
        attend_one(q, at, head_dim, width, cached, tiles, keys, values, n, scale, scores, mixed)
        give(op, segment[SEGMENT.first] + t, head, mixed, 0, n_tokens)
        t += 1


def attention_kernel(name: str, kind: str, do: Callable) -> CKernel:
    """Make the kernel of an op with the words of AttentionOp; threads take heads.

    kind  "f16" or "f32", the numbers of the cache; each has its own kernel, because few models need both
    do    does the work for a segment and a head: do(op, step, segment, head, cached, tiles, turned, scratch)
    """
    numbers_at = u16_at if kind == "f16" else f32_at

    def attend(op_address, step_address, thread):
        op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
        state = i64_at(step[STATE], STATE_WORDS)
        n_heads, n_tiles = op[ATTENTION.n_heads], op[ATTENTION.n_context] // LANES
        cached = numbers_at(op[ATTENTION.cache], op[ATTENTION.n_cached])
        scratch = step[SCRATCH] + thread * step[SCRATCH_BYTES]
        while True:
            i = take(state, FIRST_TAKEN)
            if i >= step[N_SEGMENTS] * n_heads:
                return
            head = i % n_heads
            segment = i64_at(step[SEGMENTS] + (i // n_heads) * SEGMENT_WORDS * 8, SEGMENT_WORDS)
            tiles = i64_at(segment[SEGMENT.tiles], n_tiles)
            turned = numbers_at(scratch + LANES * 4, LANES)
            do(op, step, segment, head, cached, tiles, turned, scratch)

    attend.__name__ = attend.__qualname__ = name
    return c_kernel(3)(attend)


attention_f16 = attention_kernel("attention_f16", "f16", _attend_segment)
attention_f32 = attention_kernel("attention_f32", "f32", _attend_segment)
