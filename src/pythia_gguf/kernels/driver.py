"""Runs a list of ops on several threads: one call per thread for any stretch of the list, a barrier after each op.

Knows no model: an op is a row of numbers, most of them addresses, and its kernel reads them. Whoever made the row has
checked every size. `run_ops` keeps plain decoding to one call; who wants to look inside stops between two ops.

An op, i64 [OP_WORDS]: the address of its kernel, what the kernel wants (see there), and in the last word whether the
threads need not wait after it. A step, i64 [STEP_WORDS]: what changes from call to call.
"""

from collections.abc import Callable, Iterable

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.attention import attend_eight, attend_one, keep, rotate
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.curves import gelu_erf, gelu_tanh
from pythia_gguf.kernels.jit import CKernel, c_kernel, inlined, is_compiled, kernel
from pythia_gguf.kernels.layer_norm import normalize
from pythia_gguf.kernels.memory import call_at, f32_at, i32_at, i64_at, u8_at, u16_at
from pythia_gguf.kernels.numba_private import data_of
from pythia_gguf.kernels.simd import LANES, load, load16, store
from pythia_gguf.kernels.threads import DONE, FIRST_TAKEN, STATE_WORDS, take, wait
from pythia_gguf.kernels.words import prefetch

OP_WORDS = 24
NO_WAIT = OP_WORDS - 1
# tokens, rows of logits wanted, address of the wanted rows i64, segments, their address (see attention_op),
# state of the threads, scratch, its bytes per thread, threads, number of this call
STEP_WORDS = 10
N_TOKENS, N_WANTED, WANTED, N_SEGMENTS, SEGMENTS, STATE, SCRATCH, SCRATCH_BYTES, N_THREADS, SERIAL = range(STEP_WORDS)
# A segment: its first token of this step, how many, its slot in the cache, position of the first.
SEGMENT_WORDS = 4
PLAIN, GELU_ERF, GELU_TANH = range(3)
# How far ahead the next rows are asked for.
ROWS_AHEAD = 4
# Which rows an op does: of all tokens; of the wanted ones, which it gathers from all; those, gathered before.
ALL_ROWS, GATHERED_ROWS, WANTED_ROWS = range(3)


@intrinsic
def _address_of(typing_context, array):
    """Where an array's data begins."""

    def emit(context, builder, sig, args):
        data = data_of(context, builder, sig.args[0], args[0])
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), emit


@kernel
def run_ops(ops, first, last, step, thread):
    """Do ops first .. last - 1 as one of the threads; returns when all threads have, and notes step[SERIAL] as done.

    ops     i64 [n_ops, OP_WORDS]
    step    i64 [STEP_WORDS], the same for all threads
    thread  0 .. step[N_THREADS] - 1
    """
    state = i64_at(step[STATE], STATE_WORDS)
    base = _address_of(ops)
    for i in range(first, last):
        call_at(ops[i, 0], (base + i * OP_WORDS * 8, _address_of(step), np.int64(thread)))
        if ops[i, NO_WAIT] == 0 or i == last - 1:
            wait(state, step[N_THREADS])
    if thread == 0:
        state[DONE] = step[SERIAL]


@inlined
def _float(word):
    """A float32 whose bits are the low half of a word."""
    return np.int32(word).view(np.float32)


@inlined
def _quantize(quantizer, x, records, n_columns, first, n, t, n_tokens):
    """Columns first .. first + n - 1 of row t, f32 [n] at an address, in the form that a product wants."""
    call_at(quantizer, (x, records, n_columns, first, n, np.int64(t), n_tokens))


@inlined
def _n_rows(which, step):
    """Rows of one of ALL_ROWS, GATHERED_ROWS, WANTED_ROWS."""
    return step[N_TOKENS] if which == ALL_ROWS else step[N_WANTED]


@c_kernel(3)
def norm_op(op_address, step_address, thread):
    """What the last products add to rows, then their LayerNorm, and its int8 form where the next product wants it.

    1 x, 2 its stride, 3 n, 4 weight, 5 bias, 6 bits of eps, 7 out f32 [rows, n], 8 quantizer or 0, 9 its records,
    10 which thread begins, 11 ALL_ROWS, GATHERED_ROWS or WANTED_ROWS, 12 13 what is added to x, of its stride, or 0,
    14 where x goes then, [rows, stride], or 0; not x itself, which other threads may still read
    """
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, stride = op[3], op[2]
    n_rows = _n_rows(op[11], step)
    wanted = i64_at(step[WANTED], step[N_WANTED])
    weight, bias = f32_at(op[4], n), f32_at(op[5], n)
    eps = _float(op[6])
    out = f32_at(op[7], n_rows * n)
    own = step[SCRATCH] + thread * step[SCRATCH_BYTES]
    for t in range((thread + op[10]) % step[N_THREADS], n_rows, step[N_THREADS]):
        row = (wanted[t] if op[11] == GATHERED_ROWS else t) * stride * 4
        x = f32_at(op[1] + row, stride)
        if op[12] or op[14]:
            total = f32_at(op[14] + t * stride * 4 if op[14] else own, stride)
            a = f32_at(op[12] + row, stride)
            b = f32_at(op[13] + row, stride)
            for i in range(0, stride, LANES):
                v = load(x, i)
                if op[12]:
                    v = v + load(a, i)
                if op[13]:
                    v = v + load(b, i)
                store(total, i, v)
            x = total
        normalize(x, 0, n, weight, bias, eps, out, t * n)
        if op[8]:
            _quantize(op[8], op[7] + t * n * 4, op[9], n, np.int64(0), n, t, n_rows)


@c_kernel(3)
def input_op(op_address, step_address, thread):
    """Rows as the next product wants them: without gaps between them, and in int8 form.

    1 x f32, 2 its stride, 3 n, 4 out f32 [rows, n] (x itself where there are no gaps), 5 quantizer or 0, 6 its records,
    7 ALL_ROWS or GATHERED_ROWS
    """
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n, n_rows = op[3], _n_rows(op[7], step)
    wanted = i64_at(step[WANTED], step[N_WANTED])
    for t in range(thread, n_rows, step[N_THREADS]):
        if op[4] != op[1]:
            row = wanted[t] if op[7] == GATHERED_ROWS else t
            x, out = f32_at(op[1] + row * op[2] * 4, n), f32_at(op[4] + t * n * 4, n)
            for i in range(n):
                out[i] = x[i]
        if op[5]:
            _quantize(op[5], op[4] + t * n * 4, op[6], n, np.int64(0), n, t, n_rows)


@inlined
def _finish(op, n_tokens, first, last):
    """Bias, activation and int8 form of columns 16 first .. 16 last - 1 of a product."""
    stride, after, n = op[6], op[9], (last - first) * 16
    out = f32_at(op[4], n_tokens * stride)
    bias = f32_at(op[8], stride)
    for t in range(n_tokens):
        for j in range(first * 16, last * 16, LANES):
            at = t * stride + j
            v = load(out, at) + load(bias, j)
            if after == GELU_ERF:
                v = gelu_erf(v)
            elif after == GELU_TANH:
                v = gelu_tanh(v)
            store(out, at, v)
        if op[13]:
            _quantize(op[13], op[4] + (t * stride + first * 16) * 4, op[14], stride, first * 16, n, t, n_tokens)


@c_kernel(3)
def product_op(op_address, step_address, thread):
    """Matrix product of a piece of its rows at a time, bias, and what comes after it; threads take pieces.

    1 kernel (kernels/matmul.py), 2 weights, 3 x, 4 out f32, 5 n_columns, 6 stride of out, a multiple of LANES,
    7 groups of 16 rows, 8 bias f32 [stride] or 0, 9 PLAIN, GELU_ERF or GELU_TANH, 10 counter of pieces,
    11 groups in a piece, even, 12 ALL_ROWS or WANTED_ROWS, 13 quantizer of the result or 0 (then the stride is
    the number of rows), 14 its records
    """
    op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
    n_tokens = _n_rows(op[12], step)
    state = i64_at(step[STATE], STATE_WORDS)
    scratch = step[SCRATCH] + thread * step[SCRATCH_BYTES]
    if n_tokens == 0:
        return
    while True:
        first = take(state, op[10]) * op[11]
        if first >= op[7]:
            return
        last = min(first + op[11], op[7])
        call_at(op[1], (op[2], op[3], op[4], n_tokens, op[5], op[6], first, last, scratch))
        if op[8]:
            _finish(op, n_tokens, first, last)


@inlined
def _keep_segment(op, segment, head, keys, values, turned, scratch):
    """Turn queries and keys of a segment's tokens, put keys and values into the cache."""
    head_dim, width, stride, n_rotated = op[5], op[6], op[2], op[8]
    hidden = head_dim * op[7]
    cos_sin = f32_at(op[10], op[9] * n_rotated)
    words, whole = i32_at(scratch, LANES), u8_at(op[1], 64)
    for t in range(segment[1]):
        # Rows of a product lie far apart, and another processor may have them.
        ahead = ((segment[0] + t + ROWS_AHEAD) * stride + head * head_dim) * 4
        for part in range(3):
            for line in range(0, head_dim * 4, 64):
                prefetch(whole, ahead + part * hidden * 4 + line)
        qkv = f32_at(op[1] + (segment[0] + t) * stride * 4, stride)
        p = segment[3] + t
        rotate(qkv, head * head_dim, cos_sin, p * n_rotated, n_rotated)
        rotate(qkv, hidden + head * head_dim, cos_sin, p * n_rotated, n_rotated)
        tile = (p // LANES) * head_dim * LANES + p % LANES
        keep(qkv, hidden + head * head_dim, head_dim, words, turned, keys, tile, LANES)
        keep(qkv, 2 * hidden + head * head_dim, head_dim, words, turned, values, p * width, 1)


@inlined
def _give(op, t, head, mixed, start, n_tokens):
    """What a head gives for a token: into the output, and into its int8 form."""
    head_dim = op[5]
    hidden = head_dim * op[7]
    out = f32_at(op[3] + t * hidden * 4, hidden)
    whole = head_dim - head_dim % 16
    for i in range(0, whole, 16):
        store(out, head * head_dim + i, load16(mixed, start + i))
    for i in range(whole, head_dim):
        out[head * head_dim + i] = mixed[start + i]
    if op[13]:
        at = op[3] + (t * hidden + head * head_dim) * 4
        _quantize(op[13], at, op[14], hidden, head * head_dim, head_dim, t, n_tokens)


@inlined
def _attend_segment(op, step, segment, head, keys, values, turned, scratch):
    """All tokens of a segment, one head, eight at a time; eight that end a segment may overlap those before."""
    head_dim, width, stride, n_context = op[5], op[6], op[2], op[9]
    factors, mixed = f32_at(scratch, LANES), f32_at(scratch + LANES * 4, 8 * width)
    scores = f32_at(scratch + (LANES + 8 * width) * 4, 8 * n_context)
    scale = _float(op[11])
    _keep_segment(op, segment, head, keys, values, turned, scratch)
    q = f32_at(op[1] + segment[0] * stride * 4, segment[1] * stride)
    t, n_tokens = 0, step[N_TOKENS]
    while segment[1] >= 8 and t + 2 < segment[1]:
        t = min(t, segment[1] - 8)
        n, at = segment[3] + t + 1, t * stride + head * head_dim
        attend_eight(q, at, stride, head_dim, width, keys, values, n, scale, scores, n_context, factors, mixed)
        for j in range(8):
            _give(op, segment[0] + t + j, head, mixed, j * width, n_tokens)
        t += 8
    while t < segment[1]:
        at = t * stride + head * head_dim
        attend_one(q, at, head_dim, width, keys, values, segment[3] + t + 1, scale, scores, mixed)
        _give(op, segment[0] + t, head, mixed, 0, n_tokens)
        t += 1


def _attention_op(name: str, numbers_at: Callable, n_bytes: int) -> CKernel:
    """Attention of every segment and head; threads take heads.

    1 qkv f32, 2 its stride, at least 3 hidden + LANES, 3 out f32 [T, hidden], 4 cache of the layer, 5 head_dim,
    6 width of a cached value, 7 heads, 8 rotated dimensions, 9 positions of a slot, a multiple of LANES, 10 cosines and
    sines f32 [positions, rotated], 11 bits of the scale, 12 bytes of a slot, 13 quantizer of the result or 0 (then
    head_dim is whole 32), 14 its records
    A slot: keys of all heads, each [positions / LANES][head_dim][LANES]; values, each [positions][width].
    """

    def attend(op_address, step_address, thread):
        op, step = i64_at(op_address, OP_WORDS), i64_at(step_address, STEP_WORDS)
        state = i64_at(step[STATE], STATE_WORDS)
        n_heads, n_context = op[7], op[9]
        n_key, n_value = n_context * op[5], n_context * op[6]
        scratch = step[SCRATCH] + thread * step[SCRATCH_BYTES]
        while True:
            i = take(state, FIRST_TAKEN)
            if i >= step[N_SEGMENTS] * n_heads:
                return
            head = i % n_heads
            segment = i64_at(step[SEGMENTS] + (i // n_heads) * SEGMENT_WORDS * 8, SEGMENT_WORDS)
            slot = op[4] + segment[2] * op[12]
            keys = numbers_at(slot + head * n_key * n_bytes, n_key)
            values = numbers_at(slot + (n_heads * n_key + head * n_value) * n_bytes, n_value)
            turned = numbers_at(scratch + LANES * 4, LANES)
            _attend_segment(op, step, segment, head, keys, values, turned, scratch)

    attend.__name__ = attend.__qualname__ = name
    return c_kernel(3)(attend)


OPS = {
    "norm": norm_op,
    "input": input_op,
    "product": product_op,
    # Two kernels, for float16 bit patterns and for float32 in the cache: few models need both.
    "attention_f16": _attention_op("attention_f16", u16_at, 2),
    "attention_f32": _attention_op("attention_f32", f32_at, 4),
}


def op_address(name: str) -> int:
    """The C function of one of OPS, compiled when it is first asked for."""
    return OPS[name].address


def compile_run_ops() -> None:
    """Compile `run_ops`, or load it from the cache."""
    state, step = np.zeros(STATE_WORDS, np.int64), np.zeros(STEP_WORDS, np.int64)
    step[STATE], step[N_THREADS] = state.ctypes.data, 1
    run_ops(np.zeros((0, OP_WORDS), np.int64), 0, 0, step, 0)


def run_ops_job() -> Job:
    """How it is compiled."""
    kinds = np.zeros((0, OP_WORDS), np.int64), 0, 0, np.zeros(STEP_WORDS, np.int64), 0
    return Job("run_ops", __name__, compile_run_ops.__name__, (), is_compiled(run_ops, *kinds))


def op_jobs(names: Iterable[str]) -> list[Job]:
    """How some of OPS are compiled."""
    return [Job(name, __name__, op_address.__name__, (name,), OPS[name].is_kept) for name in names]
