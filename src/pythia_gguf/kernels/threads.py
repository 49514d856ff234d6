"""What threads that run kernels side by side share: atomic numbers, and a barrier that gives way on busy CPUs.

The state is five cache lines of int64: number of threads that have arrived, barriers passed, pieces taken of two kinds
of work, and number of the last step that is done.
"""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels.jit import inlined
from pythia_gguf.kernels.numba_private import data_of, get_or_insert_function

STATE_WORDS = 40
_ARRIVED, _PASSED, FIRST_TAKEN, SECOND_TAKEN, DONE = 0, 8, 16, 24, 32
# A thread looks for about 20 microseconds; then it lets other programs run on its CPU.
_LOOKS = 2000
_GIVE_WAY = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@intrinsic
def _atomic_add(typing_context, array, index, value):
    """Add to array[index], int64, and return the old value; sequentially consistent."""

    def emit(context, builder, sig, args):
        data = data_of(context, builder, sig.args[0], args[0])
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), emit


@intrinsic
def _atomic_load(typing_context, array, index):
    """array[index], int64, with everything its writer wrote before."""

    def emit(context, builder, sig, args):
        data = data_of(context, builder, sig.args[0], args[0])
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(array, types.intp), emit


@intrinsic
def _give_way(typing_context):
    """Let another thread have this CPU."""

    def emit(context, builder, sig, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.call(get_or_insert_function(builder.module, kind, _GIVE_WAY), [])

    return types.int32(), emit


@inlined
def take(state, counter):
    """Take the next piece of work that no thread has: 0, 1, 2, ... since the last barrier.

    counter  FIRST_TAKEN or SECOND_TAKEN, for work between the same two barriers
    """
    return _atomic_add(state, counter, 1)


@inlined
def _count_anew(state):
    state[FIRST_TAKEN] = 0
    state[SECOND_TAKEN] = 0


@inlined
def wait(state, n_threads):
    """Return when all threads have come here; from then on, pieces of work are counted from 0 again.

    state  i64 [STATE_WORDS]  zeros at first, the same for all threads
    """
    if n_threads == 1:
        _count_anew(state)
        return
    passed = _atomic_load(state, _PASSED)
    if _atomic_add(state, _ARRIVED, 1) + 1 == n_threads:
        state[_ARRIVED] = 0
        _count_anew(state)
        _atomic_add(state, _PASSED, 1)
        return
    looks = 0
    while _atomic_load(state, _PASSED) == passed:
        looks += 1
        if looks > _LOOKS:
            _give_way()
