"""The ops of kernels/ops.py in parts: the values between two parts are in memory, where a hook can see or change them.

Each part computes the same float operations in the same order as the whole op, so that a look at these values changes
no bit. Only steps with hooks run the parts.
"""

import numpy as np

from pythia_gguf.kernels.attention import mix_one, rotate, score_tile, softmax
from pythia_gguf.kernels.curves import gelu_erf, gelu_tanh
from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.layer_norm import mean_and_scale, normalize_by
from pythia_gguf.kernels.memory import f32_at, i64_at
from pythia_gguf.kernels.op_words import (
    ACTIVATION,
    ATTENTION,
    GATHERED_ROWS,
    GELU_ERF,
    N_THREADS,
    N_TOKENS,
    N_WANTED,
    NORM_PART,
    OP_WORDS,
    SEGMENT,
    STEP_WORDS,
    SUM,
    WANTED,
)
from pythia_gguf.kernels.ops import attention_kernel, float_of, give, keep_segment, keys_of, rows_of, values_of
from pythia_gguf.kernels.simd import LANES, load, store

MASKED = np.float32(-np.inf)
ZERO = np.float32(0)


@c_kernel(3)
def sum_op(op_address, step_address, thread):
    """See `SumOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride = step[N_TOKENS], op[SUM.stride]
    x, a, b = f32_at(op[SUM.x], n * stride), f32_at(op[SUM.added_a], n * stride), f32_at(op[SUM.added_b], n * stride)
    for t in range(thread, n, step[N_THREADS]):
        for i in range(t * stride, (t + 1) * stride, LANES):
            v = load(x, i) + load(a, i)
            if op[SUM.added_b]:
                v = v + load(b, i)
            store(x, i, v)


@c_kernel(3)
def norm_scale_op(op_address, step_address, thread):
    """The scale of each row; see `NormPartOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride, n_rows = op[NORM_PART.n], op[NORM_PART.stride], rows_of(op[NORM_PART.rows], step)
    wanted, scales = i64_at(step[WANTED], step[N_WANTED]), f32_at(op[NORM_PART.scales], n_rows)
    for t in range(thread, n_rows, step[N_THREADS]):
        row = wanted[t] if op[NORM_PART.rows] == GATHERED_ROWS else t
        x = f32_at(op[NORM_PART.x] + row * stride * 4, stride)
        scales[t] = mean_and_scale(x, 0, n, float_of(op[NORM_PART.eps]))[1]


@c_kernel(3)
def norm_by_scale_op(op_address, step_address, thread):
    """Rows normalized by the scales in memory; see `NormPartOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride, n_rows = op[NORM_PART.n], op[NORM_PART.stride], rows_of(op[NORM_PART.rows], step)
    wanted, scales = i64_at(step[WANTED], step[N_WANTED]), f32_at(op[NORM_PART.scales], n_rows)
    weight, bias, out = (
        f32_at(op[NORM_PART.weight], n),
        f32_at(op[NORM_PART.bias], n),
        f32_at(op[NORM_PART.out], n_rows * n),
    )
    for t in range(thread, n_rows, step[N_THREADS]):
        row = wanted[t] if op[NORM_PART.rows] == GATHERED_ROWS else t
        x = f32_at(op[NORM_PART.x] + row * stride * 4, stride)
        mean = mean_and_scale(x, 0, n, float_of(op[NORM_PART.eps]))[0]
        normalize_by(x, 0, n, mean, scales[t], weight, bias, out, t * n)


@c_kernel(3)
def activation_op(op_address, step_address, thread):
    """See `ActivationOp`."""
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride = step[N_TOKENS], op[ACTIVATION.stride]
    x = f32_at(op[ACTIVATION.x], n * stride)
    for t in range(thread, n, step[N_THREADS]):
        for i in range(t * stride, (t + 1) * stride, LANES):
            v = load(x, i)
            store(x, i, gelu_erf(v) if op[ACTIVATION.kind] == GELU_ERF else gelu_tanh(v))


@inlined
def _turn_segment(op, step, segment, head, cached, tiles, turned, scratch):
    """Turn queries and keys in place; the attention that follows must have no dimensions to turn."""
    head_dim, stride, n_rotated = op[ATTENTION.head_dim], op[ATTENTION.stride], op[ATTENTION.n_rotated]
    cos_sin = f32_at(op[ATTENTION.cos_sin], op[ATTENTION.n_context] * n_rotated)
    for t in range(segment[SEGMENT.n_tokens]):
        qkv = f32_at(op[ATTENTION.qkv] + (segment[SEGMENT.first] + t) * stride * 4, stride)
        at = (segment[SEGMENT.position] + t) * n_rotated
        rotate(qkv, head * head_dim, cos_sin, at, n_rotated)
        rotate(qkv, (op[ATTENTION.n_heads] + head) * head_dim, cos_sin, at, n_rotated)


@inlined
def _scores_of(op, t, head):
    """The row of a token and a head."""
    n_context = op[ATTENTION.n_context]
    return f32_at(op[ATTENTION.scores] + (t * op[ATTENTION.n_heads] + head) * n_context * 4, n_context)


@inlined
def _score_segment(op, step, segment, head, cached, tiles, turned, scratch):
    """Keep keys and values, and compute the scores of all tokens: minus infinity where a token may not look."""
    head_dim, stride, scale = op[ATTENTION.head_dim], op[ATTENTION.stride], float_of(op[ATTENTION.scale])
    keep_segment(op, segment, head, cached, tiles, turned, scratch)
    for t in range(segment[SEGMENT.n_tokens]):
        q = f32_at(op[ATTENTION.qkv] + (segment[SEGMENT.first] + t) * stride * 4, stride)
        n_keys, scores = segment[SEGMENT.position] + t + 1, _scores_of(op, segment[SEGMENT.first] + t, head)
        for first in range(0, n_keys, LANES):
            at = tiles[first // LANES] + keys_of(op, head)
            score_tile(q, head * head_dim, head_dim, cached, at, scale, scores, first)
        for p in range(n_keys, op[ATTENTION.n_context]):
            scores[p] = MASKED


@inlined
def _soften_segment(op, step, segment, head, cached, tiles, turned, scratch):
    """Replace scores by exponentials, and set their factors."""
    n_heads = op[ATTENTION.n_heads]
    factors = f32_at(op[ATTENTION.factors], step[N_TOKENS] * n_heads)
    for t in range(segment[SEGMENT.n_tokens]):
        n_keys, scores = segment[SEGMENT.position] + t + 1, _scores_of(op, segment[SEGMENT.first] + t, head)
        n_tiles = (n_keys + LANES - 1) // LANES
        factors[(segment[SEGMENT.first] + t) * n_heads + head] = softmax(scores, 0, n_keys, n_tiles)
        for p in range(n_tiles * LANES, op[ATTENTION.n_context]):
            scores[p] = ZERO


@inlined
def _mix_segment(op, step, segment, head, cached, tiles, turned, scratch):
    """Compute the result of each head from exponentials and factors."""
    n_heads, width = op[ATTENTION.n_heads], op[ATTENTION.width]
    factors, mixed = f32_at(op[ATTENTION.factors], step[N_TOKENS] * n_heads), f32_at(scratch, width)
    for t in range(segment[SEGMENT.n_tokens]):
        row = segment[SEGMENT.first] + t
        n_keys, weights = segment[SEGMENT.position] + t + 1, _scores_of(op, row, head)
        factor = factors[row * n_heads + head]
        mix_one(weights, n_keys, cached, tiles, values_of(op, head), width, factor, mixed, 0)
        give(op, row, head, mixed, 0, step[N_TOKENS])


# Parts that do not touch the cache are the same for both kinds of it.
rotate_op = attention_kernel("rotate", "f16", _turn_segment)
scores_f16 = attention_kernel("scores_f16", "f16", _score_segment)
scores_f32 = attention_kernel("scores_f32", "f32", _score_segment)
softmax_op = attention_kernel("softmax", "f16", _soften_segment)
mix_f16 = attention_kernel("mix_f16", "f16", _mix_segment)
mix_f32 = attention_kernel("mix_f32", "f32", _mix_segment)
