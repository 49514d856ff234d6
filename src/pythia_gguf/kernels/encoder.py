"""How an encoder, which works on arrays, becomes a kernel that is reached by its address."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

from pythia_gguf.formats import FORMATS
from pythia_gguf.kernels.c_kernel import CKernel
from pythia_gguf.kernels.jit import c_kernel, inlined
from pythia_gguf.kernels.memory import f32_at, u8_at


def encoder(format_name: str) -> Callable[[Callable], CKernel]:
    """Decorator: `f(x, out)`, or `f(x, w, out)`, becomes a kernel of (x, n, out), or (x, w, n, out).

    Its x, w and out are addresses of f32 [n], f32 [n] and the bytes of the format, and n is a number of weights.
    """
    block_weights, block_bytes = FORMATS[format_name].block_weights, FORMATS[format_name].block_bytes

    def made(function: Callable) -> CKernel:
        encode = inlined(function)

        def plain(x, n, out):
            encode(f32_at(x, n), u8_at(out, n // block_weights * block_bytes))

        def weighted(x, w, n, out):
            encode(f32_at(x, n), f32_at(w, n), u8_at(out, n // block_weights * block_bytes))

        outer = plain if len(signature(function).parameters) == 2 else weighted
        outer.__name__, outer.__module__ = function.__name__, function.__module__
        return c_kernel(len(signature(outer).parameters))(outer)

    return made
