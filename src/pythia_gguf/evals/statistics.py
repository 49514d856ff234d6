"""What a comparison of two models' predictions comes to, as llama-perplexity counts it.

Knows no model: it takes one row of numbers for each token. Formulas: llama.cpp 0c1e57098, tools/perplexity/
perplexity.cpp (`kl_divergence`), with sums in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pythia_gguf.kernels.divergence import KL, NLL_CANDIDATE, NLL_REFERENCE, P_CANDIDATE, P_REFERENCE, SAME_TOP


def perplexity(losses: np.ndarray) -> tuple[float, float]:
    """exp of the mean loss, and its standard error: the error of the mean times the perplexity.

    losses  f64 [n], nats; n at least 2
    """
    value = math.exp(float(losses.mean()))
    return value, value * _error(losses)


def comparison(rows: np.ndarray) -> dict[str, Any]:
    """Statistics of one file.

    rows     f64 [n, N_COLUMNS] of kernels/divergence.py; n at least 2
    Returns  `ppl`, `ln_ratio` (ln of perplexity over the reference's), `kl_*` in nats, `dp_*` (change of the
             probability of the token that came, candidate less reference), `same_top1`; means with standard errors
    """
    ratio = rows[:, NLL_CANDIDATE] - rows[:, NLL_REFERENCE]
    kl, dp = rows[:, KL], rows[:, P_CANDIDATE] - rows[:, P_REFERENCE]
    same = rows[:, SAME_TOP]
    ppl, ppl_error = perplexity(rows[:, NLL_CANDIDATE])
    result = {
        "ppl": ppl,
        "ppl_error": ppl_error,
        "ln_ratio": float(ratio.mean()),
        "ln_ratio_error": _error(ratio),
        "kl_mean": float(kl.mean()),
        "kl_error": _error(kl),
        "kl_median": float(np.median(kl)),
        "kl_p90": float(np.percentile(kl, 90)),
        "kl_p99": float(np.percentile(kl, 99)),
        "kl_p999": float(np.percentile(kl, 99.9)),
        "kl_max": float(kl.max()),
        "dp_mean": float(dp.mean()),
        "dp_rms": math.sqrt(float(np.mean(dp * dp))),
        "dp_p1": float(np.percentile(dp, 1)),
        "dp_p10": float(np.percentile(dp, 10)),
        "dp_p90": float(np.percentile(dp, 90)),
        "dp_p99": float(np.percentile(dp, 99)),
        "same_top1": float(same.mean()),
        "same_top1_error": math.sqrt(float(same.mean()) * (1 - float(same.mean())) / (len(same) - 1)),
    }
    return result | {"n_tokens": len(rows)}


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std()) / math.sqrt(len(values) - 1)
