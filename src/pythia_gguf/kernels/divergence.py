"""Compares two models' logits row by row: losses, the Kullback-Leibler divergence, the most likely token.

With r and c the logits of reference and candidate, and S their sums of exponentials, KL = sum of p (r - c) + ln S_c -
ln S_r. The kernel computes r - c first, so that digits do not cancel for nearly equal models. Vectors are float32;
every 256 values their sums go into float64.
"""

from __future__ import annotations

import math

import numpy as np

from pythia_gguf.cpus import threads_of, workers_of
from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.curves import exponential
from pythia_gguf.kernels.jit import inlined, is_compiled, kernel
from pythia_gguf.kernels.simd import LANES, any_lane, fold_max, fold_sum, load, select, splat

# Columns of the result.
NLL_REFERENCE, NLL_CANDIDATE, KL, P_REFERENCE, P_CANDIDATE, SAME_TOP = range(6)
N_COLUMNS = 6
_LEAST = np.float32(-3.0e38)
_RUN = 8 * LANES


@inlined
def _most(x, start, n):
    """The largest of n values, n a multiple of LANES."""
    most = splat(_LEAST)
    for i in range(start, start + n, LANES):
        v = load(x, i)
        most = select(v > most, v, most)
    return fold_max(most)


@inlined
def _first_of(x, start, n, value):
    """The first index of a value, n a multiple of LANES."""
    for i in range(start, start + n, LANES):
        if any_lane(load(x, i) == value):
            for j in range(LANES):
                if x[i + j] == value:
                    return i + j - start
    return -1


@kernel
def _compare_rows(reference, candidate, targets, stride, out):
    """Compare each row; both f32 [n * stride], filled up with very small numbers; out f64 [n, N_COLUMNS]."""
    for row in range(targets.size):
        start = row * stride
        m_r, m_c = _most(reference, start, stride), _most(candidate, start, stride)
        sum_r = sum_c = sum_d = 0.0
        for first in range(0, stride, _RUN):
            r_run = splat(np.float32(0))
            c_run, d_run = r_run, r_run
            for i in range(start + first, start + min(first + _RUN, stride), LANES):
                r, c = load(reference, i), load(candidate, i)
                e = exponential(r - m_r)
                r_run = r_run + e
                c_run = c_run + exponential(c - m_c)
                d_run = d_run + e * (r - c)
            sum_r += np.float64(fold_sum(r_run))
            sum_c += np.float64(fold_sum(c_run))
            sum_d += np.float64(fold_sum(d_run))
        log_r, log_c = np.float64(m_r) + math.log(sum_r), np.float64(m_c) + math.log(sum_c)
        target = start + targets[row]
        out[row, NLL_REFERENCE] = log_r - reference[target]
        out[row, NLL_CANDIDATE] = log_c - candidate[target]
        out[row, KL] = sum_d / sum_r + log_c - log_r
        out[row, P_REFERENCE] = math.exp(reference[target] - log_r)
        out[row, P_CANDIDATE] = math.exp(candidate[target] - log_c)
        same = _first_of(reference, start, stride, m_r) == _first_of(candidate, start, stride, m_c)
        out[row, SAME_TOP] = 1.0 if same else 0.0


def compare_job() -> Job:
    """The job that compiles `compare`."""
    logits, targets, out = np.empty(0, np.float32), np.empty(0, np.int64), np.empty((0, N_COLUMNS), np.float64)
    is_kept = is_compiled(_compare_rows, logits, logits, targets, LANES, out)
    return Job("divergence", __name__, compile_compare.__name__, (), is_kept)


def compile_compare() -> None:
    """Compile `compare`, or load it from the cache."""
    nothing = np.empty((0, 1), np.float32)
    compare(nothing, nothing, np.empty(0, np.int64), threads=1)


def compare(
    reference: np.ndarray, candidate: np.ndarray, targets: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """Compare rows of logits: f64 [n, N_COLUMNS], losses and divergence in nats.

    reference, candidate  f32 [n, n_vocab]  finite
    targets               i64 [n]           the tokens that came
    threads               default one per CPU; no result depends on it
    Raises                ValueError for other shapes and types, and for an unknown target
    """
    n, n_vocab = reference.shape
    if candidate.shape != (n, n_vocab) or targets.shape != (n,) or n_vocab == 0:
        raise ValueError(f"shapes {reference.shape}, {candidate.shape} and {targets.shape} do not fit")
    if reference.dtype != np.float32 or candidate.dtype != np.float32:
        raise ValueError(f"expected float32, got {reference.dtype} and {candidate.dtype}")
    if n and not 0 <= targets.min() <= targets.max() < n_vocab:
        raise ValueError(f"targets must be in 0..{n_vocab - 1}")
    out = np.empty((n, N_COLUMNS), np.float64)
    stride = -(-n_vocab // LANES) * LANES
    r, c, t = _padded(reference, stride), _padded(candidate, stride), targets.astype(np.int64)

    def run(first: int, last: int) -> None:
        part = slice(first * stride, last * stride)
        _compare_rows(r[part], c[part], t[first:last], stride, out[first:last])

    n_threads = threads_of(threads)
    edges = [n * i // n_threads for i in range(n_threads + 1)]
    with workers_of(n_threads, "compare") as pool:
        list(pool.map(run, edges[:-1], edges[1:]))
    return out


def _padded(logits: np.ndarray, stride: int) -> np.ndarray:
    """Logits as f32 [n * stride]; a copy only where rows are not whole vectors."""
    if logits.shape[1] == stride and logits.flags.c_contiguous:
        return logits.reshape(-1)
    padded = np.full((logits.shape[0], stride), _LEAST, np.float32)
    padded[:, : logits.shape[1]] = logits
    return padded.reshape(-1)
