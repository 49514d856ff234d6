"""The methods of a model that scoring, evaluation, batches and a server call.

`engine.model.Model`, which runs GGUF files on CPUs, has them; an engine for another device is one more class with the
same few methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pythia_gguf.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a step does for one sequence.

    seq       number of the sequence, from `Sequences.open`
    ids       tokens that come next
    n_wanted  the caller wants logits after so many of their last tokens
    """

    seq: int
    ids: Sequence[int] | np.ndarray
    n_wanted: int = 1


class Sequences(Protocol):
    """Sequences of tokens that a model is working on, each with its own keys and values.

    The logits of a sequence depend neither on what else is in a step nor on how its tokens are cut into steps.
    """

    @property
    def n_sequences(self) -> int:
        """Sequences that can be open at a time."""

    @property
    def n_context(self) -> int:
        """Most tokens of each."""

    @property
    def n_slice(self) -> int:
        """Tokens that go through the model at once; a longer step is cut into slices of so many."""

    def open(self) -> int:
        """Begin an empty sequence; raises UsageError when all are in use."""

    def close(self, seq: int) -> None:
        """Give up a sequence, its place and its memory."""

    def length(self, seq: int) -> int:
        """Tokens of a sequence."""

    def truncate(self, seq: int, n_tokens: int) -> None:
        """Forget all but the first n tokens."""

    def fork(self, seq: int, n_tokens: int) -> int:
        """Begin a sequence with the first n tokens of another one, and share their keys and values where possible."""

    def step(self, parts: Sequence[Part], room: np.ndarray | None = None) -> np.ndarray:
        """Append tokens to sequences; logits f32 [rows wanted, n_vocab], in the order of the parts.

        room  of `room_for`: memory for the logits; None takes new memory
        """

    def room_for(self, n_rows: int) -> np.ndarray:
        """Memory for the logits of so many rows, to be given to `step` again and again."""


class Engine(Protocol):
    """A model that is ready to run."""

    @property
    def n_vocab(self) -> int:
        """Logits of a row."""

    @property
    def n_context(self) -> int:
        """Positions that the model has."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Text to ids and back."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Which file runs, and how; results repeat it."""

    @property
    def n_parameters(self) -> int:
        """Weights and biases, over all tensors."""

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that every step reads, however few tokens it takes along."""

    def kv_bytes(self, n_tokens: int) -> int:
        """Memory for the keys and values of a sequence of so many tokens."""

    def sequences(
        self, n_sequences: int = 1, n_context: int | None = None, *, kv_bytes: int | None = None
    ) -> Sequences:
        """Room for so many sequences of so many tokens each; None: as many tokens as the model has positions.

        kv_bytes  most memory for their keys and values; None: for all sequences at their longest
        """
