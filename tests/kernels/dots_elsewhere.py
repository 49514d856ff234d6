"""Dot products of bytes with the largest bytes that there are; run as a program for other kinds of CPU.

python dots_elsewhere.py Q4_K,Q8_0    prints for each format its name and the number of sums that are wrong, of few and
of many tokens; then "too many", name, "few" or "many", and the number where more vectors than allowed are added as
int16
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
from numba import njit

from pythia_gguf.kernels import dots
from pythia_gguf.kernels.dots import dot2, even_bytes, odd_bytes
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import cpu_context
from pythia_gguf.kernels.simd import load16, store
from pythia_gguf.kernels.unpack import LAYOUTS
from pythia_gguf.kernels.words import spread

CASES = 64


def caller(dot: Callable) -> Callable:
    """A function of weights i32 [n, 4, 16], activations i32 [n, 4 or 8] and results i32 [n, 16], all flat."""

    @njit
    def call(w, x, out):
        for i in range(out.size // 16):
            v = (load16(w, i * 64), load16(w, i * 64 + 16), load16(w, i * 64 + 32), load16(w, i * 64 + 48))
            store(out, i * 16, dot(load16(out, i * 16), v[0], v[1], v[2], v[3], x, i * 4))

    return call


def numbers(low: int, high: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """int64 from low to high; in the first quarter all low, in the second all high, in the third one of both."""
    rng = np.random.default_rng(seed)
    result = rng.integers(low, high + 1, shape)
    quarter = len(result) // 4
    result[:quarter], result[quarter : 2 * quarter] = low, high
    result[2 * quarter : 3 * quarter] = rng.choice([low, high], result[2 * quarter : 3 * quarter].shape)
    return result


def wrong(dot: Callable, w: np.ndarray, x: np.ndarray, x_true: np.ndarray) -> int:
    """Sums that are not those of int64: weights [n, 4, 16, 4], activations [n, 4, 4] as stored and as meant."""
    out = np.full((len(w), 16), 1000, np.int32)
    words = [values.view(np.int32).reshape(-1) for values in (w.astype(np.uint8), np.ascontiguousarray(x))]
    caller(dot)(*words, out.reshape(-1))
    return int((out != 1000 + np.einsum("nkrb,nkb->nr", w, x_true)).sum())


@inlined
def by_words(t, w0, w1, w2, w3, x, at):
    """The product of many tokens where it takes int16: two words of activations for each vector of weights."""
    for k, w in enumerate((w0, w1, w2, w3)):
        t = dot2(t, even_bytes(w), spread(x, 2 * at + 2 * k))
        t = dot2(t, odd_bytes(w), spread(x, 2 * at + 2 * k + 1))
    return t


def wrong_sums(format_name: str, made: dots.Dots) -> tuple[int, int]:
    """For few and for many tokens."""
    layout, shape = LAYOUTS[format_name], (CASES, 4, 16, 4)
    raised = layout.offset if made.few_signed else 0
    # Activations go through their four kinds within each kind of codes.
    codes = numbers(0, layout.most, shape, 0)
    signed = np.tile(numbers(-127, 127, (CASES // 4, 4, 4), 1), (4, 1, 1))
    few = wrong(made.few, codes - raised, signed.astype(np.uint8), signed)
    weights, unsigned = codes - layout.offset, signed + 128
    if made.many is None:
        return few, wrong(by_words, weights, signed[:, :, [0, 2, 1, 3]].astype(np.int16), signed)
    return few, wrong(made.many, weights, unsigned.astype(np.uint8), signed if made.many_signed else unsigned)


def wrong_beyond(format_name: str) -> Iterator[tuple[str, int]]:
    """Where one can add more vectors as int16 than is allowed: "few" or "many", and sums that are wrong then."""
    layout = LAYOUTS[format_name]
    few = dots.run_of(layout.most, 128), dots.pairs
    many = dots.run_of(255, max(layout.offset, layout.most - layout.offset)), dots._unsigned_activations
    for which, (run, product) in enumerate((few, many)):
        if run < 4:
            beyond = dots._by_pairs(2 * run or 1, product)
            made = dots.Dots(few=beyond, many=beyond, few_signed=False, many_signed=False, token_by_token=True)
            yield ("few", "many")[which], wrong_sums(format_name, made)[which]


def main() -> None:
    """Print the counts."""
    for name in sys.argv[1].split(","):
        print(name, *wrong_sums(name, dots.dots_of(LAYOUTS[name].most, LAYOUTS[name].offset)))
        if dots.dot_kind(cpu_context()) == dots.BYTE_PAIRS:
            for which, n_wrong in wrong_beyond(name):
                print("too many", name, which, n_wrong)


if __name__ == "__main__":
    main()
