"""The sum of the odds of all tokens to the most likely one, in float64: it turns logits into log-probabilities.

exp is our own polynomial of multiplications and additions, and the order of the sum is fixed, so the same logits give
the same bits on every CPU. Loops are plain, so that LLVM can turn them into vectors.
"""

import math

import numpy as np

from pythia_gguf.kernels.compiling import Job
from pythia_gguf.kernels.jit import is_compiled, kernel

# Number of logits that are worked on together, and of partial sums.
_RUN = 256
_LOG2_E = np.float64(1.4426950408889634)
# ln 2 in two parts; the first has zeros at its end, so n times it is exact (Cody and Waite).
_LN2_HIGH = np.float64(6.93147180369123816490e-01)
_LN2_LOW = np.float64(1.90821492927058770002e-10)
_MAGIC = np.float64(6755399441055744.0)  # 1.5 * 2**52: adding it leaves the nearest integer in the low bits
_BIAS = np.int64(1023 << 52)
# e**-708 is the last power of e that is not denormal; smaller odds add nothing to a sum of at least 1.
_LEAST = np.float64(-708.0)
# 1 / n!, from 13 down to 2: on |r| <= ln(2) / 2 the rest is below 5e-18.
_TERMS = tuple(np.float64(1 / math.factorial(n)) for n in range(13, 1, -1))


@kernel
def _sum_odds(logits, most, x, t, sums):
    """Sum of e**(logit - most).

    logits      f32 [n]     finite or -infinity, none above `most`
    x, t, sums  f64 [_RUN]  memory to work in
    """
    bits = t.view(np.int64)
    for i in range(_RUN):
        sums[i] = 0.0
    for first in range(0, logits.size, _RUN):
        # Slices, so that every index below is a plain counter.
        run = logits[first : first + _RUN]
        for i in range(run.size):
            gap = np.float64(run[i]) - most
            x[i] = gap if gap > _LEAST else _LEAST
            t[i] = x[i] * _LOG2_E + _MAGIC
        for i in range(run.size):
            n = t[i] - _MAGIC
            r = x[i] - n * _LN2_HIGH
            r = r - n * _LN2_LOW
            p = r * _TERMS[0] + _TERMS[1]
            p = p * r + _TERMS[2]
            p = p * r + _TERMS[3]
            p = p * r + _TERMS[4]
            p = p * r + _TERMS[5]
            p = p * r + _TERMS[6]
            p = p * r + _TERMS[7]
            p = p * r + _TERMS[8]
            p = p * r + _TERMS[9]
            p = p * r + _TERMS[10]
            p = p * r + _TERMS[11]
            x[i] = p * r * r + r + np.float64(1.0)
        for i in range(run.size):
            bits[i] = (bits[i] << 52) + _BIAS
        for i in range(run.size):
            sums[i] += x[i] * t[i]
    total = 0.0
    for i in range(_RUN):
        total += sums[i]
    return total


def odds_sum(logits: np.ndarray, most: float) -> float:
    """sum(exp(logits - most)), with a relative error of a few 1e-16.

    logits  f32 [n]  finite or -infinity, not all of them -infinity
    most    the largest of them
    Raises  ValueError for another type or shape, and for none
    """
    if logits.dtype != np.float32 or logits.ndim != 1 or logits.size == 0:
        raise ValueError(f"logits must be float32 [n], got {logits.dtype} {logits.shape}")
    x, t, sums = np.empty((3, _RUN))
    total: float = _sum_odds(np.ascontiguousarray(logits), np.float64(most), x, t, sums)
    return total


def odds_job() -> Job:
    """The job that compiles `odds_sum`."""
    logits, room = np.empty(0, np.float32), np.empty(0)
    is_kept = is_compiled(_sum_odds, logits, np.float64(0), room, room, room)
    return Job("odds", __name__, compile_odds.__name__, (), is_kept)


def compile_odds() -> None:
    """Compile `odds_sum`, or load it from the cache."""
    odds_sum(np.zeros(1, np.float32), 0.0)
