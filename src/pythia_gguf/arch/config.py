"""The sizes and switches of one model, whichever file they were read from.

Each architecture reads its own keys into this one type; everything that runs, plans or writes a model reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS of llama.cpp


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of a model.

    architecture       key of ARCHITECTURES
    n_context          positions it was trained for, in tokens
    rotary_dims        number of dimensions at the beginning of each head that are rotated; even
    rope_base          base of the rotation frequencies
    parallel_residual  attention and feed-forward both read the block's input
    hidden_act         activation as config.json names it; None from a GGUF, which has no key for it
    tied_embeddings    one matrix is both embeddings and output
    """

    architecture: str
    n_layers: int
    n_heads: int
    hidden: int
    n_ffn: int
    n_context: int
    n_vocab: int
    rotary_dims: int
    rope_base: float
    layer_norm_eps: float
    parallel_residual: bool
    hidden_act: str | None
    tied_embeddings: bool

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden // self.n_heads
