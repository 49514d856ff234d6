"""Runs a list of ops on several threads: one call per thread for any stretch of the list, a barrier after each op.

Plain decoding is one call; a caller with hooks stops between two ops. kernels/op_words.py says what the words of an op
and of a step mean.
"""

from collections.abc import Iterable

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pythia_gguf.kernels import ops, stage_ops
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.jit import is_compiled, kernel
from pythia_gguf.kernels.memory import call_at, i64_at
from pythia_gguf.kernels.numba_private import data_of
from pythia_gguf.kernels.op_words import N_THREADS, NO_WAIT, OP_WORDS, SERIAL, STATE, STEP_WORDS
from pythia_gguf.kernels.threads import DONE, STATE_WORDS, wait


@intrinsic
def _address_of(typing_context, array):
    """The address of an array's data."""

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


# By the names that builders use. Attention has two kernels, because few models need both.
OPS = {
    "norm": ops.norm_op,
    "input": ops.input_op,
    "product": ops.product_op,
    "attention_f16": ops.attention_f16,
    "attention_f32": ops.attention_f32,
}
# Parts of ops, which only steps with hooks need.
STAGE_OPS = {
    "sum": stage_ops.sum_op,
    "norm_scale": stage_ops.norm_scale_op,
    "norm_by_scale": stage_ops.norm_by_scale_op,
    "activation": stage_ops.activation_op,
    "rotate": stage_ops.rotate_op,
    "scores_f16": stage_ops.scores_f16,
    "scores_f32": stage_ops.scores_f32,
    "softmax": stage_ops.softmax_op,
    "mix_f16": stage_ops.mix_f16,
    "mix_f32": stage_ops.mix_f32,
}
_ALL_OPS = OPS | STAGE_OPS


def op_address(name: str) -> int:
    """The C function of one of OPS or STAGE_OPS, compiled when it is first asked for."""
    return _ALL_OPS[name].address


def compile_run_ops() -> None:
    """Compile `run_ops`, or load it from the cache."""
    state, step = np.zeros(STATE_WORDS, np.int64), np.zeros(STEP_WORDS, np.int64)
    step[STATE], step[N_THREADS] = state.ctypes.data, 1
    run_ops(np.zeros((0, OP_WORDS), np.int64), 0, 0, step, 0)


def run_ops_job() -> Job:
    """The job that compiles `run_ops`."""
    kinds = np.zeros((0, OP_WORDS), np.int64), 0, 0, np.zeros(STEP_WORDS, np.int64), 0
    return Job("run_ops", __name__, compile_run_ops.__name__, (), is_compiled(run_ops, *kinds))


def op_jobs(names: Iterable[str]) -> list[Job]:
    """Jobs that compile some of the ops."""
    return [Job(name, __name__, op_address.__name__, (name,), _ALL_OPS[name].is_kept) for name in names]
