"""Calls the functions that check buffers for kernels, on buffers between pages that nobody may touch; a program.

A kernel that reads or writes one byte beside its buffer ends the process. Prints how many calls went through, and how
many were refused.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from collections.abc import Callable, Iterator

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.divergence import compare
from pythia_gguf.kernels.encode import ENCODABLE, encode
from pythia_gguf.kernels.odds import odds_sum
from pythia_gguf.kernels.suffixes import sort_documents
from pythia_gguf.kernels.widen import widen
from pythia_gguf.progress import Silence

_PAGE = mmap.PAGESIZE
_kept: list[mmap.mmap] = []  # memory lives as long as the process, protected as it is


def _forbid(address: int) -> None:
    """Nobody may read or write a page from now on."""
    if sys.platform == "win32":
        done = ctypes.windll.kernel32.VirtualProtect(
            ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), 1, ctypes.byref(ctypes.c_ulong())
        )
        assert done
    else:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), 0) == 0


def guarded(values: np.ndarray, at_end: bool) -> np.ndarray:
    """A copy whose last byte, or first one, lies beside a forbidden page."""
    n_pages = max(1, -(-values.nbytes // _PAGE))
    memory = mmap.mmap(-1, (n_pages + 2) * _PAGE)
    _kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = (n_pages + 1) * _PAGE - values.nbytes if at_end else _PAGE
    copy = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    copy[...] = values
    _forbid(start)
    _forbid(start + (n_pages + 1) * _PAGE)
    return copy


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def good_calls() -> Iterator[tuple[Callable[..., object], list[object]]]:
    """Functions and arguments of all sizes that matter: one block, and more than a chunk of them."""
    for name, n in itertools.product(ENCODABLE, (1, 2, 67)):
        block = FORMATS[name]
        weights = _numbers(n * block.block_weights)
        out = np.zeros(block.row_bytes(weights.size), np.uint8)
        yield encode, [name, weights, out]
        yield encode, [name, weights, out, np.abs(_numbers(block.block_weights))]
        yield encode, [name, weights, out, np.abs(_numbers(n * block.block_weights))]
    for name, n in itertools.product(("F16", "BF16", "F32"), (1, 31, 33, 100)):
        yield widen, [name, np.zeros(FORMATS[name].row_bytes(n), np.uint8), np.zeros(n, np.float32)]
    for n, n_vocab in itertools.product((1, 5), (2, 31, 33, 300)):
        yield compare, [_numbers(n, n_vocab), _numbers(n, n_vocab) + 1, np.arange(n) % n_vocab]
    for n in (1, 255, 256, 257, 600):
        yield odds_sum, [_numbers(n), 9.0]
    for n_letters, sizes in itertools.product((1, 3, 1 << 16), ([1], [5], [1, 2, 3], [40] * 50)):
        ids = np.random.default_rng(2).integers(0, n_letters, sum(sizes), np.uint16)
        yield sort_documents, [ids, np.array(sizes, np.int32), Silence()]


def bad_calls(function: Callable[..., object], arguments: list[object]) -> Iterator[list[object]]:
    """The same with one array that does not fit: too short, too long, of another type, with gaps, with another axis."""
    if function is odds_sum:  # takes any number of logits
        logits = np.asarray(arguments[0])
        yield from ([guarded(bad, at_end=True), 9.0] for bad in (logits[None], logits.astype(np.float64)))
        return
    for i, array in enumerate(arguments):
        if not isinstance(array, np.ndarray) or (function is encode and i == 3 and arguments[0] == "Q8_0"):
            continue  # of names there are others; Q8_0 does not look at importances
        bad = [array[:-1], np.concatenate([array, array[:1]]), array[None]]
        if function is not compare and array.size > 1:
            bad.append(np.repeat(array, 2)[::2])
        if function is not compare or i < 2:
            bad.append(array.astype(np.float64))
        for replaced in bad:
            given = [guarded(a, at_end=True) if isinstance(a, np.ndarray) else a for a in arguments]
            given[i] = guarded(replaced, at_end=True) if replaced.flags.c_contiguous else replaced
            yield given
    if function is compare:
        for target in (-1, arguments[0].shape[1], 1 << 40):  # type: ignore[attr-defined]
            yield [*arguments[:2], np.full_like(arguments[2], target)]


def main() -> None:
    n_good = n_bad = 0
    for function, arguments in good_calls():
        expected = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        answer = function(*expected)
        for at_end in (False, True):
            given = [guarded(a, at_end) if isinstance(a, np.ndarray) else a for a in arguments]
            assert np.array_equal(function(*given), answer) if answer is not None else function(*given) is None
            assert all(np.array_equal(a, b) for a, b in zip(given, expected, strict=True))
            n_good += 1
        for given in bad_calls(function, arguments):
            try:
                function(*given)
            except ValueError:
                n_bad += 1
            else:
                raise AssertionError(f"{function.__name__} took {[getattr(a, 'shape', a) for a in given]}")
    print(n_good, n_bad)


if __name__ == "__main__":
    main()
