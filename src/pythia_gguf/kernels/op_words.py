"""The words of an op and of a step, by name: engine/op_builder.py writes them, and kernels/driver.py reads them.

An op is a row i64 [OP_WORDS]: the address of its kernel, the words of one of the classes below in their order, zeros,
and NO_WAIT, which says whether threads go on to the next op without waiting for each other. Kernels read
`op[NORM.stride]`; a builder makes `NormOp(stride=...)`, which Python refuses when a word is missing or unknown.

A word that stands for an array is its address. `rows` is ALL_ROWS, GATHERED_ROWS or WANTED_ROWS.
"""

from __future__ import annotations

from typing import Any, NamedTuple

OP_WORDS = 24
NO_WAIT = OP_WORDS - 1

# A step holds what changes from call to call: i64 [STEP_WORDS].
# tokens, rows of logits wanted, address of the wanted rows i64, segments, their address,
# state of the threads, scratch, its bytes per thread, threads, number of this call
STEP_WORDS = 10
N_TOKENS, N_WANTED, WANTED, N_SEGMENTS, SEGMENTS, STATE, SCRATCH, SCRATCH_BYTES, N_THREADS, SERIAL = range(STEP_WORDS)

# What a product does to its result.
PLAIN, GELU_ERF, GELU_TANH = range(3)
# Which rows an op does: those of all tokens; those of the wanted tokens, which it gathers; or those, gathered already.
ALL_ROWS, GATHERED_ROWS, WANTED_ROWS = range(3)


class Segment(NamedTuple):
    """Tokens of one sequence in a step: a row i64 [SEGMENT_WORDS].

    first     number of its first token in the step
    n_tokens  number of its tokens
    tiles     address of the offsets of the sequence's tiles, i64, in numbers from `AttentionOp.cache`
    position  position of its first token in the sequence
    """

    first: int
    n_tokens: int
    tiles: int
    position: int


class NormOp(NamedTuple):
    """LayerNorm of rows, after the results of the last products were added to them.

    x, stride, n       f32 [rows, stride], a row has n values
    weight, bias       f32 [n]
    eps                bits of a float32
    out                f32 [rows, n]
    quantizer, records form of `out` for the next product; quantizer 0: it takes float32
    begins             the thread that does the first row
    rows               which rows
    added_a, added_b   rows to add to x, f32 [rows, stride], or 0
    total              gets the sum, f32 [rows, stride], or 0; not x itself, which other threads may still read
    """

    x: int
    stride: int
    n: int
    weight: int
    bias: int
    eps: int
    out: int
    quantizer: int
    records: int
    begins: int
    rows: int
    added_a: int
    added_b: int
    total: int


class InputOp(NamedTuple):
    """Rows in the form that the next product multiplies: without gaps, and as its quantizer makes them.

    x, stride, n        f32 [rows, stride], a row has n values
    out                 f32 [rows, n]; x itself where there are no gaps
    quantizer, records  form of `out` for the product; quantizer 0: it takes float32
    rows                which rows
    """

    x: int
    stride: int
    n: int
    out: int
    quantizer: int
    records: int
    rows: int


class ProductOp(NamedTuple):
    """A matrix product, its bias and its activation; threads take pieces of the matrix.

    matmul              kernel of kernels/matmul.py
    weights, x          as that kernel takes them
    out                 f32 [rows, stride]
    n_columns           columns of the matrix
    stride              a multiple of LANES, at least 16 * n_groups
    n_groups            groups of 16 rows of the matrix
    bias                f32 [stride], or 0
    after               PLAIN, GELU_ERF or GELU_TANH, with a bias or without
    counter             FIRST_TAKEN or SECOND_TAKEN; two products between the same barriers need different ones
    piece_groups        groups in a piece, even
    rows                which rows, not GATHERED_ROWS
    quantizer, records  form of the result; quantizer 0: none is made, else stride is the number of values of a row
    """

    matmul: int
    weights: int
    x: int
    out: int
    n_columns: int
    stride: int
    n_groups: int
    bias: int
    after: int
    counter: int
    piece_groups: int
    rows: int
    quantizer: int
    records: int


class AttentionOp(NamedTuple):
    """Attention of every segment and head; threads take heads.

    qkv, stride         f32 [T, stride], stride at least 3 hidden + LANES
    out                 f32 [T, hidden]
    cache, n_cached     all tiles of the layer, and numbers from there to the end: in a tile the keys of all heads,
                        then their values; see kernels/attention.py
    head_dim, width     values of a head, and the room for them in the cache
    n_heads             heads
    n_rotated           dimensions of a head to turn; 0 where they are turned already
    n_context           most positions of a sequence, a multiple of LANES
    cos_sin             f32 [positions, n_rotated]
    scale               factor of the scores, bits of a float32
    quantizer, records  form of `out`; quantizer 0: none is made, else head_dim is a multiple of 32
    scores              f32 [T, n_heads, n_context], for parts of attention: scores, then their exponentials; else 0
    factors             f32 [T, n_heads], for parts of attention: 1 over the sum of the exponentials; else 0
    """

    qkv: int
    stride: int
    out: int
    cache: int
    n_cached: int
    head_dim: int
    width: int
    n_heads: int
    n_rotated: int
    n_context: int
    cos_sin: int
    scale: int
    quantizer: int
    records: int
    scores: int
    factors: int


class SumOp(NamedTuple):
    """Rows to which other rows are added, in place.

    x, stride         f32 [T, stride], stride a multiple of LANES
    added_a, added_b  f32 [T, stride]; added_b may be 0
    """

    x: int
    stride: int
    added_a: int
    added_b: int


class NormPartOp(NamedTuple):
    """One part of LayerNorm by itself.

    x, stride, n  f32 [rows, stride], a row has n values
    weight, bias  f32 [n]
    eps           bits of a float32
    scales        f32 [rows]: the root of variance plus eps
    out           f32 [rows, n]
    rows          which rows
    """

    x: int
    stride: int
    n: int
    weight: int
    bias: int
    eps: int
    scales: int
    out: int
    rows: int


class ActivationOp(NamedTuple):
    """The activation of rows, in place.

    x, stride  f32 [T, stride], stride a multiple of LANES
    kind       GELU_ERF or GELU_TANH
    """

    x: int
    stride: int
    kind: int


def _places(words: type[Any]) -> Any:
    """The place of each word in a row."""
    return words(*range(1, 1 + len(words.__annotations__)))


SEGMENT = Segment(*range(len(Segment.__annotations__)))
SEGMENT_WORDS = len(SEGMENT)
# Numba takes them for constants.
NORM: NormOp = _places(NormOp)
INPUT: InputOp = _places(InputOp)
PRODUCT: ProductOp = _places(ProductOp)
ATTENTION: AttentionOp = _places(AttentionOp)
SUM: SumOp = _places(SumOp)
NORM_PART: NormPartOp = _places(NormPartOp)
ACTIVATION: ActivationOp = _places(ActivationOp)
