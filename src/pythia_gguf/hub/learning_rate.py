"""The learning rate of Pythia's training: a warm-up, a cosine towards zero, and a floor where it stops.

Source: gpt-neox v1.0 (71df4d5), megatron/learning_rates.py.
"""

from __future__ import annotations

import math


def learning_rate(n_updates: int, *, peak: float, least: float, decay: int, warmup_share: float = 0.01) -> float:
    """Rate of the next update.

    n_updates     that there have been; the first update has rate 0
    decay         updates over which the cosine runs towards zero
    warmup_share  of `decay`; the rate rises in a line meanwhile
    The cosine is stretched over `decay` updates from the end of the warm-up and is held at `least` as soon as it falls
    below: with Pythia's numbers from update 115,139 of 143,000 on. Later versions of gpt-neox do otherwise.
    """
    warmup = warmup_share * decay
    if n_updates <= warmup:
        return peak * n_updates / warmup if warmup else peak
    progress = min(n_updates, decay - warmup) - warmup
    return max(peak / 2 * (1 + math.cos(math.pi * progress / decay)), least)
