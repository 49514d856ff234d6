"""The part of a model that its sessions share: weights in memory, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.arch import ModelConfig
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.weights import Weights
from pythia_gguf.engine.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner(ProcessBound):
    """Everything about a model that all its sessions share.

    path         its file, for messages
    config       sizes
    weights      tensors
    workers      threads that do its steps, one step at a time
    gelu         "erf" or "tanh"
    activations  "int8", "float32" or "bf16x3", as they are used
    cache        "f16" or "f32": how keys and values are kept
    """

    path: Path
    config: ModelConfig
    weights: Weights
    workers: Workers
    gelu: str
    activations: str
    cache: str

    @property
    def n_vocab(self) -> int:
        """Rows of the output matrix, including those that pad it."""
        return self.config.n_vocab

    @property
    def n_context(self) -> int:
        """Positions that the model was trained for."""
        return self.config.n_context

    @property
    def threads(self) -> int:
        """Threads that a step runs on."""
        return self.workers.n_threads
