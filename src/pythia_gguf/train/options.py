"""What does not belong to the recipe of a training; torch is not needed to say it."""

from __future__ import annotations

from dataclasses import dataclass

DEVICES = ("cpu", "cuda")
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What does not belong to the recipe.

    micro         rows that go through the model at once; None: as many as seem to fit
    device        "cpu" or "cuda"
    dtype         of the weights in checkpoints
    keep_states   of so many last checkpoints training can go on; 0: of all
    save_every_s  seconds after which the state is saved between checkpoints; 0: never
    recompute     compute activations again for gradients, which saves memory
    threads       of torch; None: as torch chooses. Sums are taken in another order with another number
    """

    micro: int | None = None
    device: str = "cpu"
    dtype: str = "float16"
    keep_states: int = 2
    save_every_s: float = 600.0
    recompute: bool = False
    threads: int | None = None
