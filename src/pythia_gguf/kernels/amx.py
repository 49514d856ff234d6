"""Tile registers of x86 processors with AMX: 16 rows of 64 bytes, and sums of products of bfloat16 numbers.

Two times two tiles of sums, tokens down, rows of weights across, stay in registers while columns pass by. A number is
the sum of two bfloat16 numbers, `high` and `low`; low times low, 2**-16 of the whole and less, is left out, so there
are three products.

    activations  of 16 tokens and 32 columns: a tile of high, a tile of low; a row is a token
    weights      of 32 rows and 32 columns: high of rows 0..15 and of 16..31, then low; row k of a tile holds columns
                 2 k and 2 k + 1 of each of 16 rows of weights, side by side

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS; kernel.org, x86/xstate.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.cpu_features import x86_feature
from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.memory import u8_at
from pythia_gguf.kernels.numba_private import cpu_context, get_or_insert_function
from pythia_gguf.kernels.words import ask_for_line

TILE_BYTES = 1024
CONFIG_BYTES = 64
_ROWS, _ROW_BYTES = 16, 64
# x86-64 Linux: the system call `arch_prctl`, its request for a part of the processor's state, and the part for tiles.
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_POINTER = _BYTE.as_pointer()
# Registers: 0..3 sums, as (tokens, rows) = 00 01 10 11; then activations and weights.
_SUMS, _TOKENS, _WEIGHTS = (0, 1, 2, 3), (4, 5), (6, 7)
_HIGH, _LOW = 0, 1


@cache
def has_tiles() -> bool:
    """Whether the processor that is compiled for has them and the system lets this process use them; asks it to."""
    context = cpu_context()
    if sys.platform != "linux" or platform.machine() != "x86_64" or not x86_feature(context, "amx-bf16"):
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0


@inlined
def configure(address):
    """All eight tiles have 16 rows of 64 bytes from now on; CONFIG_BYTES at an address say so to the processor."""
    words = u8_at(address, CONFIG_BYTES)
    for i in range(CONFIG_BYTES):
        words[i] = 0
    words[0] = 1
    for i in range(8):
        words[16 + 2 * i] = _ROW_BYTES
        words[48 + i] = _ROWS
    _load_config(address)


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value | int) -> None:
    """An LLVM intrinsic of x86; numbers are those of tiles."""
    values = [ir.Constant(_BYTE, a) if isinstance(a, int) else a for a in arguments]
    kind = ir.FunctionType(ir.VoidType(), [v.type for v in values])
    builder.call(get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), values)


def _moved(builder: ir.IRBuilder, name: str, tile: int, address: ir.Value, offset: int) -> None:
    """A tile between its register and memory."""
    at = builder.inttoptr(builder.add(address, ir.Constant(_WORD, offset)), _POINTER)
    _call(builder, name, tile, at, ir.Constant(_WORD, _ROW_BYTES))


@intrinsic
def _load_config(typing_context, address):
    def emit(context, builder, sig, args):
        _call(builder, "ldtilecfg", builder.inttoptr(args[0], _POINTER))
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic
def release(typing_context):
    """Tiles are not needed any more: the system has less to save when the thread gives way."""

    def emit(context, builder, sig, args):
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def zero_sums(typing_context):
    """All four tiles of sums."""

    def emit(context, builder, sig, args):
        for tile in _SUMS:
            _call(builder, "tilezero", tile)
        return context.get_dummy_value()

    return types.void(), emit


def _sums_mover(name: str) -> Any:
    @intrinsic
    def move(typing_context, first, second):
        def emit(context, builder, sig, args):
            for tile in _SUMS:
                _moved(builder, name, tile, args[tile // 2], tile % 2 * TILE_BYTES)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), emit

    return move


# Sums of the first 16 tokens, two tiles at one address, and of the other 16 at another.
load_sums, store_sums = _sums_mover("tileloadd64"), _sums_mover("tilestored64")


@intrinsic
def multiply(typing_context, first, second, weights):
    """Add 32 columns to all sums: high times low, high times high, low times high, in this order.

    Asks for the next 32 columns of both sides, which lie behind these; it may be memory of others.

    first, second  activations of 16 tokens each
    weights        of 32 rows
    """

    def emit(context, builder, sig, args):
        def load(tiles: tuple[int, int], at: list[tuple[ir.Value, int]], step: int) -> None:
            for tile, place in zip(tiles, at, strict=True):
                _moved(builder, "tileloadd64", tile, *place)
            for address, offset in at:
                for line in range(0, TILE_BYTES, _ROW_BYTES):
                    ahead = builder.add(address, ir.Constant(_WORD, offset + step + line))
                    ask_for_line(builder, builder.inttoptr(ahead, _POINTER), 3)

        def load_tokens(part: int) -> None:
            load(_TOKENS, [(address, part * TILE_BYTES) for address in args[:2]], 2 * TILE_BYTES)

        def load_weights(part: int) -> None:
            load(_WEIGHTS, [(args[2], (2 * part + i) * TILE_BYTES) for i in range(2)], 4 * TILE_BYTES)

        def add_products() -> None:
            for tile in _SUMS:
                _call(builder, "tdpbf16ps", tile, _TOKENS[tile // 2], _WEIGHTS[tile % 2])

        load_tokens(_HIGH)
        load_weights(_LOW)
        add_products()
        load_weights(_HIGH)
        add_products()
        load_tokens(_LOW)
        add_products()
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit
