"""The memory that a step needs between its ops, large enough for the longest step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.kernels.matmul import new_records, product_scratch, records_bytes
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.simd import LANES
from pythia_gguf.machine import require_memory

# Tokens that go through the model at once. Many tokens share the unpacking of weights; few can be stopped sooner.
SLICE_TOKENS = {"int8": 192, "float32": 192, "bf16x3": 256}


def rounded_up(n: int, unit: int) -> int:
    """The first multiple of `unit` that is not below n."""
    return -(-n // unit) * unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Rows that one op writes and others read.

    array      f32 [n_tokens, stride]
    n_columns  values of a row; the rest of the stride is padding
    records    the rows in quantized form, for a product that reads them
    """

    array: np.ndarray
    n_columns: int
    records: np.ndarray | None = None

    @property
    def address(self) -> int:
        """Address of the first row."""
        return self.array.ctypes.data

    @property
    def stride(self) -> int:
        """Numbers from one row to the next."""
        return self.array.shape[1]

    @property
    def records_address(self) -> int:
        """Address of the first record; 0 where there are none."""
        return 0 if self.records is None else self.records.ctypes.data


class Workspace:
    """Buffers for steps of at most n_tokens, in a context of a multiple of LANES.

    x, spare              the residual stream: a norm reads one, adds results of products, writes the sum to the other
    qkv                   queries, keys and values of all heads
    from_attention        result of the attention half
    ffn                   inside of the feed-forward half
    from_ffn              result of the feed-forward half
    in_qkv, in_dense      inputs of attn_qkv, attn_output,
    in_up, in_down        ffn_up and ffn_down
    gathered, in_output   the memory of in_qkv, which is free once q, k and v are made
    wanted                i64 [n_tokens], rows whose logits are wanted
    cos_sin               f32 [n_context, rotary_dims]
    n_context             positions
    """

    def __init__(self, config: ModelConfig, n_tokens: int, n_context: int) -> None:
        """Reserve memory; steps take its pages as they need them."""
        hidden, n_ffn = config.hidden, config.n_ffn
        self._n_tokens, self._n_heads, self.n_context = n_tokens, config.n_heads, n_context
        self.x, self.spare, self.from_attention, self.from_ffn = (self._rows(hidden) for _ in range(4))
        self.qkv = self._rows(3 * hidden, beyond=LANES)
        self.ffn = self._rows(n_ffn)
        self.in_qkv, self.in_up, self.in_dense = (self._input(hidden) for _ in range(3))
        self.gathered = self.in_output = self.in_qkv
        # The input of ffn_down shares the memory of ffn where its rows have no gaps.
        self.in_down = self._input(n_ffn, self.ffn.array if self.ffn.stride == n_ffn else None)
        self.wanted = aligned((n_tokens,), np.int64)
        self.cos_sin = rotation_table(config.rotary_dims, config.rope_base, n_context)

    @cached_property
    def scales(self) -> np.ndarray:
        """Scales of a LayerNorm, f32 [n_tokens, 1]; only steps with hooks need them."""
        return aligned((self._n_tokens, 1), np.float32)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of attention, f32 [n_tokens, n_heads, n_context]; only steps with hooks need them."""
        shape = self._n_tokens, self._n_heads, self.n_context
        require_memory(4 * int(np.prod(shape)), "scores of attention", hints=(". A smaller context needs less",))
        return aligned(shape, np.float32)

    @cached_property
    def factors(self) -> np.ndarray:
        """Factors of the exponentials of scores, f32 [n_tokens, n_heads]; only steps with hooks need them."""
        return aligned((self._n_tokens, self._n_heads), np.float32)

    def _rows(self, n_columns: int, beyond: int = 0) -> Buffer:
        array = aligned((self._n_tokens, rounded_up(n_columns, LANES) + beyond), np.float32)
        return Buffer(array=array, n_columns=n_columns)

    def _input(self, n_columns: int, array: np.ndarray | None = None) -> Buffer:
        if array is None:
            array = aligned((self._n_tokens, n_columns), np.float32)
        return Buffer(array=array, n_columns=n_columns, records=new_records(self._n_tokens, n_columns))


def workspace_bytes(config: ModelConfig, n_tokens: int, n_context: int) -> int:
    """Memory of a `Workspace`, without the arrays that only steps with hooks need."""
    hidden, stride, n_ffn = config.hidden, rounded_up(config.hidden, LANES), rounded_up(config.n_ffn, LANES)
    rows = 4 * stride + rounded_up(3 * hidden, LANES) + LANES + n_ffn + 3 * hidden
    rows += config.n_ffn if n_ffn != config.n_ffn else 0  # else in_down shares the array of ffn
    records = 3 * records_bytes(n_tokens, hidden) + records_bytes(n_tokens, config.n_ffn)
    return n_tokens * (4 * rows + 8) + records + n_context * config.rotary_dims * 4


def scratch_bytes(config: ModelConfig, n_context: int, activations: str) -> int:
    """Memory that one thread needs for a product, for attention or for a norm."""
    attention = 4 * (8 * (n_context + config.head_dim + LANES) + LANES)
    return rounded_up(max(product_scratch(SLICE_TOKENS[activations]), attention, 4 * (config.hidden + LANES)), 64)


def rotation_table(rotary_dims: int, rope_base: float, n_context: int) -> np.ndarray:
    """Cosines, then sines, of every position: f32 [n_context, rotary_dims].

    Angles are float32 products, as in transformers 5 (modeling_gpt_neox.py, GPTNeoXRotaryEmbedding).
    """
    exponents = np.arange(0, rotary_dims, 2, dtype=np.float32) / np.float32(rotary_dims)
    # NumPy's float32 power is less exact with AVX-512 than elsewhere; float64's is exact enough on any CPU.
    powers = np.float64(np.float32(rope_base)) ** exponents.astype(np.float64)
    frequencies = np.float32(1) / powers.astype(np.float32)
    angles = np.arange(n_context, dtype=np.float32)[:, None] * frequencies[None, :]
    table = aligned((n_context, rotary_dims), np.float32)
    table[:] = np.concatenate([np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))], axis=1)
    return table
