"""What a comparison of two models' predictions comes to, as llama-perplexity counts it.

It takes one row of numbers for each token. Formulas: llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp
(`kl_divergence`), with sums in float64. A figure that does not exist is None, never NaN or infinite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pythia_gguf.kernels.divergence import KL, NLL_CANDIDATE, NLL_REFERENCE, P_CANDIDATE, P_REFERENCE, SAME_TOP


def perplexity(losses: np.ndarray) -> tuple[float | None, float | None]:
    """exp of the mean loss, and its standard error: the error of the mean times the perplexity.

    losses   f64 [n], nats; n at least 2
    Returns  None for a figure that does not exist: the mean of losses that are not finite, or an exp that overflows
    """
    try:
        value = math.exp(losses.mean())
    except OverflowError:
        return None, None
    return _finite(value), _finite(value * _error(losses))


def comparison(rows: np.ndarray) -> dict[str, Any]:
    """Statistics of one file.

    rows     f64 [n, N_COLUMNS] of kernels/divergence.py; n at least 2
    Returns  `ppl`, `ln_ratio` (ln of perplexity over the reference's), `kl_*` in nats, `dp_*` (change of the
             probability of the token that came, candidate less reference), `same_top1`; means with standard errors;
             None for each that does not exist; `missing`: why, when there are such
    """
    with np.errstate(all="ignore"):
        ratio = rows[:, NLL_CANDIDATE] - rows[:, NLL_REFERENCE]
        kl, dp = rows[:, KL], rows[:, P_CANDIDATE] - rows[:, P_REFERENCE]
        same = rows[:, SAME_TOP]
        figures = {
            "ln_ratio": ratio.mean(),
            "ln_ratio_error": _error(ratio),
            "kl_mean": kl.mean(),
            "kl_error": _error(kl),
            "kl_median": np.median(kl),
            "kl_p90": np.percentile(kl, 90),
            "kl_p99": np.percentile(kl, 99),
            "kl_p999": np.percentile(kl, 99.9),
            "kl_max": kl.max(),
            "dp_mean": dp.mean(),
            "dp_rms": np.sqrt(np.mean(dp * dp)),
            "dp_p1": np.percentile(dp, 1),
            "dp_p10": np.percentile(dp, 10),
            "dp_p90": np.percentile(dp, 90),
            "dp_p99": np.percentile(dp, 99),
            "same_top1": same.mean(),
            "same_top1_error": np.sqrt(same.mean() * (1 - same.mean()) / (len(same) - 1)),
        }
    ppl, ppl_error = perplexity(rows[:, NLL_CANDIDATE])
    result: dict[str, Any] = {"ppl": ppl, "ppl_error": ppl_error, **{k: _finite(v) for k, v in figures.items()}}
    result["n_tokens"] = len(rows)
    if missing := _missing(result, rows):
        result["missing"] = missing
    return result


def overflow(losses: np.ndarray) -> str:
    """Why losses have no perplexity."""
    return f"no perplexity: exp of the mean loss, {losses.mean():.1f} nats, is beyond all numbers"


def _missing(result: dict[str, Any], rows: np.ndarray) -> str | None:
    if None not in result.values():
        return None
    if not np.isfinite(rows[:, NLL_CANDIDATE]).all():
        return "logits are not finite"
    if result["ppl"] is None:
        return overflow(rows[:, NLL_CANDIDATE])
    return "logits are so far apart that their differences are beyond float32"


def _error(values: np.ndarray) -> Any:
    """Standard error of the mean."""
    return values.std() / math.sqrt(len(values) - 1)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
