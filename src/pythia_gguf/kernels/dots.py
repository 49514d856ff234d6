"""Exact dot products of bytes, by the best instructions that the processor has for them.

A vector of words holds four bytes of each of 16 rows, see kernels/words.py.

    dot4(t, u, s)    t + sum of four products in every lane: unsigned bytes of u, signed bytes of s
    pairs(u, s)      sums of two neighbouring products, 32 int16: exact while they fit
    sign_pairs(w, a) the same of signed bytes, no byte of a being -128
    add_pairs(t, p)  t + both sums of a lane
    even_bytes(w), odd_bytes(w)  bytes 0 and 2, 1 and 3 of every lane as two int16
    dot2(t, a, b)    t + sum of two products of int16 in every lane
    store_wide(x, i, v)  32 numbers as int16, those of even bytes before those of odd ones

VNNI and AVX-VNNI have one instruction for four products of any bytes. AVX2 multiplies bytes and adds neighbours as
int16, which saturates, so how large the bytes get decides how many vectors of sums are added before they are widened:

    codes of                    up to   few tokens: 2 * code * 128     many: 2 * 255 * largest of code - offset
    Q2_K, Q3_K                  3, 7    768, 1792      4 vectors       1530, 2040     4 vectors
    Q4_0, Q4_1 and Q4_K         15      3840           4               4080, 7650     4
    Q5_0, Q5_1 and Q5_K         31      7936           4               8160, 15810    4, 2
    Q6_K                        63      16128          2               16320          2
    Q8_0, IQ4_NL and IQ4_XS     255, 241               by sign                        as int16

The sum of so many vectors is at most 32767. By sign, the absolute value of the weight is multiplied with the activation
that has got the weight's sign: 2 * 128 * 127 fits. For many tokens such formats multiply int16, see
kernels/matmul_int16.py.

ARM's `sdot` adds four products of signed bytes. Codes up to 127 are such bytes as they are, larger ones less their
offset; the 128 of activations is taken off again, one instruction for 16 columns. ARM CPUs without `sdot` multiply
signed bytes to int16, where the sum of two products, at most 2 * 128 * 127, fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import has_sdot, is_arm, register_bytes, x86_feature
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import cpu_context
from pythia_gguf.kernels.simd import Vector, index_of, pointer_to
from pythia_gguf.kernels.words import I32X16, by_register, halves_of, in_registers, spread

VNNI, AVX_VNNI, BYTE_PAIRS, WORD_PAIRS = "VNNI", "AVX-VNNI", "pairs of bytes", "16-bit products"
SDOT, SMULL = "SDOT", "SMULL"
PAIRS = Vector(types.int16, 32)
_BYTE, _HALF, _WORD = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_BYTES = ir.VectorType(_BYTE, 64)
_MOST_INT16 = 32767
# The largest size of an activation as a signed byte, and as an unsigned one.
_MOST_SIGNED, _MOST_UNSIGNED = 128, 255
_MOST_INT8 = 127


def dot_kind(context: Any) -> str:
    """The instructions that dot products of bytes are made of on the processor that is compiled for."""
    if is_arm(context):
        return SDOT if has_sdot(context) else SMULL
    if x86_feature(context, "avx512vnni"):
        return VNNI
    if x86_feature(context, "avxvnni"):
        return AVX_VNNI
    return BYTE_PAIRS if x86_feature(context, "avx2") else WORD_PAIRS


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _as_bytes(builder: ir.IRBuilder, values: list[ir.Value]) -> list[ir.Value]:
    return [builder.bitcast(v, _BYTES) for v in values]


def _pair_products(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Products of 32 int16 lanes, neighbours added: 16 int32 lanes. LLVM makes one instruction of it (pmaddwd)."""
    wide = ir.VectorType(_WORD, 32)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    undefined = ir.Constant(wide, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(products, undefined, ir.Constant(I32X16.llvm, list(range(start, 32, 2))))
        for start in (0, 1)
    )
    return builder.add(even, odd)


def _signed_bytes(builder: ir.IRBuilder, words: ir.Value, is_odd: bool) -> ir.Value:
    """Bytes 1 and 3 of every lane, or 0 and 2, as two int16."""
    w, eight = builder.bitcast(words, PAIRS.llvm), _constant(PAIRS.llvm, 8)
    return builder.ashr(w if is_odd else builder.shl(w, eight), eight)


@intrinsic
def dot4(typing_context, total, unsigned, signed):
    """total + u0 s0 + u1 s1 + u2 s2 + u3 s3 lane by lane, exact; bytes u unsigned, bytes s signed."""

    def emit(context, builder, sig, args):
        kind = dot_kind(context)
        if kind in (VNNI, AVX_VNNI):
            name, n_bytes = ("512", 64) if kind == VNNI else ("256", 32)
            as_bytes = _as_bytes(builder, args[1:])
            return by_register(builder, f"llvm.x86.avx512.vpdpbusd.{name}", n_bytes, _WORD, args[0], *as_bytes)
        u, signed_bytes = builder.bitcast(args[1], PAIRS.llvm), partial(_signed_bytes, builder, args[2])
        even = _pair_products(builder, builder.and_(u, _constant(PAIRS.llvm, 255)), signed_bytes(is_odd=False))
        odd = _pair_products(builder, builder.lshr(u, _constant(PAIRS.llvm, 8)), signed_bytes(is_odd=True))
        return builder.add(args[0], builder.add(even, odd))

    return I32X16(total, unsigned, signed), emit


def _byte_pairs(context: Any, builder: ir.IRBuilder, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
    """vpmaddubsw."""
    n_bytes = register_bytes(context)
    name = "llvm.x86.avx512.pmaddubs.w.512" if n_bytes == 64 else "llvm.x86.avx2.pmadd.ub.sw"
    return by_register(builder, name, n_bytes, _HALF, unsigned, signed)


def _pair_sums(context: Any, builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """vpmaddwd."""
    n_bytes = register_bytes(context)
    name = "llvm.x86.avx512.pmaddw.d.512" if n_bytes == 64 else "llvm.x86.avx2.pmadd.wd"
    return by_register(builder, name, n_bytes, _WORD, a, b)


@intrinsic
def pairs(typing_context, unsigned, signed):
    """u0 s0 + u1 s1, u2 s2 + u3 s3 of every lane; needs AVX2."""

    def emit(context, builder, sig, args):
        return _byte_pairs(context, builder, *_as_bytes(builder, args))

    return PAIRS(unsigned, signed), emit


@intrinsic
def sign_pairs(typing_context, weights, activations):
    """`pairs` of signed bytes, those of the second vector above -128."""

    def emit(context, builder, sig, args):
        w, a = _as_bytes(builder, args)
        zero = _constant(_BYTES, 0)
        is_negative = builder.icmp_signed("<", w, zero)
        size = builder.select(is_negative, builder.sub(zero, w), w)
        if register_bytes(context) == 64:  # which have no vpsignb
            signed = builder.select(is_negative, builder.sub(zero, a), a)
        else:
            signed = by_register(builder, "llvm.x86.avx2.psign.b", 32, _BYTE, a, w)
        return _byte_pairs(context, builder, size, signed)

    return PAIRS(weights, activations), emit


@intrinsic
def add_pairs(typing_context, total, sums):
    """Each lane plus its two int16; needs AVX2."""

    def emit(context, builder, sig, args):
        return builder.add(args[0], _pair_sums(context, builder, args[1], _constant(PAIRS.llvm, 1)))

    return I32X16(total, sums), emit


@intrinsic
def dot2(typing_context, total, a, b):
    """total + a0 b0 + a1 b1 lane by lane, exact; two int16 a lane; needs AVX2."""

    def emit(context, builder, sig, args):
        pairs_each = [builder.bitcast(v, PAIRS.llvm) for v in args[1:]]
        return builder.add(args[0], _pair_sums(context, builder, *pairs_each))

    return I32X16(total, a, b), emit


def _split(is_odd: bool) -> Any:
    @intrinsic
    def split(typing_context, words):
        def emit(context, builder, sig, args):
            return builder.bitcast(_signed_bytes(builder, args[0], is_odd), I32X16.llvm)

        return I32X16(words), emit

    return split


even_bytes, odd_bytes = _split(False), _split(True)


@intrinsic
def store_wide(typing_context, array, index, codes):
    """32 integer lanes as int16 to 16 words from array[index]: of every four, 0 and 2, then 1 and 3."""

    def emit(context, builder, sig, args):
        at = pointer_to(context, builder, array, args[0], index_of(context, builder, args[1], index))
        order = [first + i for first in range(0, 32, 4) for i in (0, 2, 1, 3)]
        halves = builder.trunc(args[2], PAIRS.llvm)
        turned = builder.shuffle_vector(
            halves, ir.Constant(PAIRS.llvm, ir.Undefined), ir.Constant(ir.VectorType(_WORD, 32), order)
        )
        builder.store(turned, builder.bitcast(at, PAIRS.llvm.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, index, codes), emit


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Dot products for a format on the processor that is compiled for, each f(t, w0, w1, w2, w3, x, at).

    They add to t the products of 16 columns: weights in four vectors, activations from word `at` of x.

    few             codes as they are, but less the offset where `few_signed`; activations signed
    many            codes less the offset; activations 128 too large, which is made good here only where `many_signed`;
                    None where products of many tokens take int16
    few_signed, many_signed  whether the products are exact only where both bytes are signed
    token_by_token  whether registers are too few for the sums of four tokens at once
    """

    few: Callable
    many: Callable | None
    few_signed: bool
    many_signed: bool
    token_by_token: bool


def dots_of(most: int, offset: int) -> Dots:
    """The dot products for a format.

    most    its largest code
    offset  what is subtracted from codes
    """
    kind = dot_kind(cpu_context())
    if kind in (SDOT, SMULL):
        few, many = _by_signed_bytes(0), _by_signed_bytes(128)
        return Dots(few=few, many=many, few_signed=most > _MOST_INT8, many_signed=True, token_by_token=True)
    if kind != BYTE_PAIRS:
        few, many, is_small = _few_by_four, _many_by_four, kind == AVX_VNNI
        return Dots(few=few, many=many, few_signed=False, many_signed=False, token_by_token=is_small)
    few_run = run_of(most, _MOST_SIGNED)
    many_run = run_of(_MOST_UNSIGNED, max(offset, most - offset))
    if few_run and many_run:
        few, many = _by_pairs(few_run, pairs), _by_pairs(many_run, _unsigned_activations)
        return Dots(few=few, many=many, few_signed=False, many_signed=False, token_by_token=True)
    return Dots(few=_by_pairs(1, sign_pairs), many=None, few_signed=True, many_signed=True, token_by_token=True)


def run_of(most_unsigned: int, most_signed: int) -> int:
    """How many vectors of sums of two products can be added as int16, 4, 2 or 1; 0 where not even one fits."""
    return next((n for n in (4, 2, 1) if n * 2 * most_unsigned * most_signed <= _MOST_INT16), 0)


@inlined
def _few_by_four(t, w0, w1, w2, w3, x, at):
    t = dot4(t, w0, spread(x, at))
    t = dot4(t, w1, spread(x, at + 1))
    t = dot4(t, w2, spread(x, at + 2))
    return dot4(t, w3, spread(x, at + 3))


@inlined
def _many_by_four(t, w0, w1, w2, w3, x, at):
    t = dot4(t, spread(x, at), w0)
    t = dot4(t, spread(x, at + 1), w1)
    t = dot4(t, spread(x, at + 2), w2)
    return dot4(t, spread(x, at + 3), w3)


@inlined
def _unsigned_activations(w, a):
    return pairs(a, w)


def _by_pairs(run: int, product: Callable) -> Callable:
    """By `product` of weights and activations, where so many vectors of it may be added as int16."""

    @inlined
    def dot(t, w0, w1, w2, w3, x, at):
        p0, p1 = product(w0, spread(x, at)), product(w1, spread(x, at + 1))
        p2, p3 = product(w2, spread(x, at + 2)), product(w3, spread(x, at + 3))
        if run == 4:
            return add_pairs(t, (p0 + p1) + (p2 + p3))
        if run == 2:
            return add_pairs(add_pairs(t, p0 + p1), p2 + p3)
        return add_pairs(add_pairs(add_pairs(add_pairs(t, p0), p1), p2), p3)

    return dot


def _by_signed_bytes(raised: int) -> Callable:
    """By ARM's products of signed bytes; the words of x are elements of one register, so four are read at once.

    raised  by how much activations are too large: 0, or 128
    """

    @intrinsic
    def dot(typing_context, t, w0, w1, w2, w3, x, at):
        def emit(context, builder, sig, args):
            total, *weights = args[:5]
            words = ir.VectorType(_WORD, 4)
            place = pointer_to(context, builder, x, args[5], index_of(context, builder, args[6], at))
            loaded = builder.load(builder.bitcast(place, words.as_pointer()))
            loaded.align = 4
            signed = builder.xor(loaded, _constant(words, raised * 0x01010101))
            for i, w in enumerate(_as_bytes(builder, weights)):
                a = builder.bitcast(builder.shuffle_vector(signed, signed, _constant(I32X16.llvm, i)), _BYTES)
                total = _add_signed(context, builder, total, w, a)
            return total

        return I32X16(t, w0, w1, w2, w3, x, at), emit

    return dot


def _add_signed(context: Any, builder: ir.IRBuilder, total: ir.Value, w: ir.Value, a: ir.Value) -> ir.Value:
    """Each lane of the total plus four products of signed bytes."""
    if has_sdot(context):
        return by_register(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", 16, _WORD, total, w, a)

    def add(total: ir.Value, w: ir.Value, a: ir.Value) -> ir.Value:
        wide = ir.VectorType(_HALF, 16)
        products = builder.mul(builder.sext(w, wide), builder.sext(a, wide))
        (low,), (high,) = (halves_of(builder, [products], i) for i in (0, 1))
        pairs = by_register(builder, "llvm.aarch64.neon.addp.v8i16", 16, _HALF, low, high)
        return builder.add(total, by_register(builder, "llvm.aarch64.neon.saddlp.v4i32.v8i16", 16, _WORD, pairs))

    return in_registers(builder, 16, add, total, w, a)
