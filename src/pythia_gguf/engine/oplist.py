"""A model as a list of ops over a workspace: what kernels/driver.py runs for each step.

Knows no token and no text. The workspace holds what one step needs between its ops; its size is
that of the longest step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.engine.weights import Matrix, Weights
from pythia_gguf.kernels.driver import (
    ALL_ROWS,
    GATHERED_ROWS,
    GELU_ERF,
    GELU_TANH,
    NO_WAIT,
    OP_WORDS,
    PLAIN,
    WANTED_ROWS,
    op_address,
)
from pythia_gguf.kernels.matmul import (
    matmul_address,
    new_records,
    piece_groups,
    product_scratch,
    quantizer_address,
    records_bytes,
)
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.simd import LANES
from pythia_gguf.kernels.threads import FIRST_TAKEN, SECOND_TAKEN

# Tokens that go through the model at once. More share the unpacking of weights; fewer can be stopped sooner.
SLICE_TOKENS = {"int8": 192, "float32": 192, "bf16x3": 256}
_Added = tuple[np.ndarray, ...]
_GELUS = {"erf": GELU_ERF, "tanh": GELU_TANH}


def rounded_up(n: int, unit: int) -> int:
    """The first multiple of `unit` that is not below n."""
    return -(-n // unit) * unit


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """How keys and values lie in memory; see kernels/attention.py.

    n_slots     sequences
    n_context   positions of each, a multiple of LANES
    kind        "f16" or "f32"
    """

    n_slots: int
    n_context: int
    kind: str

    @property
    def dtype(self) -> type[np.generic]:
        """Of the array: float16 are kept as bit patterns."""
        return np.uint16 if self.kind == "f16" else np.float32

    def width(self, config: ModelConfig) -> int:
        """Numbers of a cached value."""
        return rounded_up(config.head_dim, LANES)

    def slot_elements(self, config: ModelConfig) -> int:
        """Numbers that one layer keeps of one sequence."""
        return config.n_heads * self.n_context * (config.head_dim + self.width(config))


class _Input:
    """Rows that a product reads: float32, and what a quantizer makes of them where a weight wants it."""

    def __init__(self, n_tokens: int, n_columns: int) -> None:
        self.n_columns = n_columns
        self.x = aligned((n_tokens, n_columns), np.float32)
        self.records = new_records(n_tokens, n_columns)


class OpList:
    """The ops of a model for steps of at most n_tokens.

    ops      i64 [n, OP_WORDS]
    n_body   ops before those that are only for logits
    inputs   (op, name, x) of each product: before that op, x f32 [n_tokens, n_columns] is what `name` multiplies
    x        f32 [n_tokens, stride], where the caller puts embeddings
    wanted   i64 [n_tokens], where the caller puts the rows that logits are wanted of
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        *,
        cache: np.ndarray,
        cache_shape: CacheShape,
        gelu: str,
        activations: str,
        n_tokens: int,
        n_threads: int,
        every_row: bool = False,
    ) -> None:
        """Build it; `cache` is [layers, slots, slot_elements].

        every_row  the last layer, too, does all that follows attention for rows that no logits are wanted of
        """
        self._config, self._weights = config, weights
        self._activations, self._n_threads = activations, n_threads
        self._cache, self._cache_shape, self._gelu = cache, cache_shape, _GELUS[gelu]
        self._kept: list[np.ndarray] = []
        self._rows: list[list[int]] = []
        self.inputs: list[tuple[int, str, np.ndarray]] = []
        hidden = config.hidden
        stride = rounded_up(hidden, LANES)
        # Two of them: a norm writes what it read, plus what products gave, into the other one.
        self.x, self._x = aligned((n_tokens, stride), np.float32), aligned((n_tokens, stride), np.float32)
        self._from_attention, self._from_ffn = (aligned((n_tokens, stride), np.float32) for _ in range(2))
        self.wanted = aligned((n_tokens,), np.int64)
        self._qkv = aligned((n_tokens, rounded_up(3 * hidden, LANES) + LANES), np.float32)
        self._h = aligned((n_tokens, rounded_up(config.n_ffn, LANES)), np.float32)
        self._in_qkv, self._in_up, self._in_dense = (_Input(n_tokens, hidden) for _ in range(3))
        self._in_down = _Input(n_tokens, config.n_ffn)
        if self._h.shape[1] == config.n_ffn:
            self._in_down.x = self._h
        self._cos_sin = _rotation_table(config, cache_shape.n_context)
        current = [self.x, self._x]
        added: _Added = ()
        layer = self._parallel_layer if config.parallel_residual else self._sequential_layer
        for i in range(config.n_layers):
            added = layer(i, current, added, is_short=i == config.n_layers - 1 and not every_row)
        if every_row:
            self.n_body = len(self._rows)
        rows = GATHERED_ROWS if every_row else WANTED_ROWS
        self._norm("output_norm", self._in_qkv, "output.weight", current[0], added, rows=rows)
        self._product("output", self._in_qkv, self._h, rows=WANTED_ROWS)
        self.ops = aligned((len(self._rows), OP_WORDS), np.int64)
        self.ops[:] = self._rows

    def write_logits_to(self, logits: np.ndarray) -> None:
        """Logits of the wanted rows go here: f32 [at least as many, stride], stride a multiple of LANES."""
        self.ops[-1, 4], self.ops[-1, 6] = logits.ctypes.data, logits.shape[1]

    def _parallel_layer(self, i: int, x: list[np.ndarray], added: _Added, *, is_short: bool) -> _Added:
        """Both halves read x; the ops between two barriers do not need each other's results.

        x         the array that holds it, and the one that it goes to; they have changed places after
        added     what must be added to x first
        is_short  only the wanted rows go on after attention: x after it is theirs
        Returns   what must be added to x after it
        """
        name = f"blk.{i}."
        gathered, rows = (GATHERED_ROWS, WANTED_ROWS) if is_short else (ALL_ROWS, ALL_ROWS)
        short, long = (x[1], None) if is_short else (None, x[1] if added else None)
        self._norm(name + "ffn_norm", self._in_up, name + "ffn_up.weight", x[0], added, short, begins=1, rows=gathered)
        self._no_wait()
        self._norm(name + "attn_norm", self._in_qkv, name + "attn_qkv.weight", x[0], added, long)
        if is_short or added:
            x.reverse()
        self._product(name + "attn_qkv", self._in_qkv, self._qkv)
        self._attention(i, quantizes=not is_short)
        self._no_wait()
        self.n_body = len(self._rows)
        self._product(
            name + "ffn_up", self._in_up, self._h, after=self._gelu, to=self._in_down, counter=SECOND_TAKEN, rows=rows
        )
        in_dense = self._in_qkv if is_short else self._in_dense
        self._input(self._in_dense.x, in_dense, name + "attn_output.weight", self._config.head_dim, rows=gathered)
        self._input(self._h, self._in_down, name + "ffn_down.weight", self._config.n_ffn, rows=rows)
        self._product(name + "attn_output", in_dense, self._from_attention, rows=rows)
        self._no_wait()
        self._product(name + "ffn_down", self._in_down, self._from_ffn, counter=SECOND_TAKEN, rows=rows)
        return self._from_attention, self._from_ffn

    def _sequential_layer(self, i: int, x: list[np.ndarray], added: _Added, *, is_short: bool) -> _Added:
        """The feed-forward half reads what the attention half gave, of the wanted rows where it is short."""
        name = f"blk.{i}."
        gathered, rows = (GATHERED_ROWS, WANTED_ROWS) if is_short else (ALL_ROWS, ALL_ROWS)
        self._norm(name + "attn_norm", self._in_qkv, name + "attn_qkv.weight", x[0], added, x[1] if added else None)
        if added:
            x.reverse()
        self._product(name + "attn_qkv", self._in_qkv, self._qkv)
        self._attention(i, quantizes=True)
        self._input(self._in_dense.x, self._in_dense, name + "attn_output.weight", self._config.head_dim)
        self._product(name + "attn_output", self._in_dense, self._from_attention)
        self.n_body = len(self._rows)
        attended = (self._from_attention,)
        self._norm(name + "ffn_norm", self._in_up, name + "ffn_up.weight", x[0], attended, x[1], rows=gathered)
        x.reverse()
        self._product(name + "ffn_up", self._in_up, self._h, after=self._gelu, to=self._in_down, rows=rows)
        self._input(self._h, self._in_down, name + "ffn_down.weight", self._config.n_ffn, rows=rows)
        self._product(name + "ffn_down", self._in_down, self._from_ffn, rows=rows)
        return (self._from_ffn,)

    def _no_wait(self) -> None:
        """Threads go on from the last op to the next without waiting for each other."""
        self._rows[-1][NO_WAIT] = 1

    def _quantizer(self, matrix: Matrix) -> int:
        return quantizer_address(matrix.activations(self._activations))

    def _norm(
        self,
        name: str,
        to: _Input,
        reader: str,
        x: np.ndarray,
        added: _Added,
        kept: np.ndarray | None = None,
        *,
        begins: int = 0,
        rows: int = ALL_ROWS,
    ) -> None:
        """`kept`: where x goes with what is added."""
        vectors, matrix = self._weights.vectors, self._weights.matrices[reader]
        eps = int(np.float32(self._config.layer_norm_eps).view(np.int32))
        weight, bias = vectors[f"{name}.weight"], vectors[f"{name}.bias"]
        row = [op_address("norm"), x.ctypes.data, x.shape[1], to.n_columns, weight.ctypes.data, bias.ctypes.data, eps]
        row += [to.x.ctypes.data, self._quantizer(matrix), to.records.ctypes.data, begins, rows]
        row += [a.ctypes.data for a in added] + [0] * (2 - len(added))
        self._add([*row, 0 if kept is None else kept.ctypes.data])

    def _input(self, x: np.ndarray, to: _Input, reader: str, run: int, *, rows: int = ALL_ROWS) -> None:
        """Unless the op that made x has made all that is needed; it makes `run` columns at a time."""
        quantizer = self._quantizer(self._weights.matrices[reader])
        if x is to.x and (quantizer == 0 or run % 32 == 0):
            return
        where = [a.ctypes.data for a in (to.x, to.records)]
        self._add([op_address("input"), x.ctypes.data, x.shape[1], to.n_columns, where[0], quantizer, where[1], rows])

    def _product(
        self,
        name: str,
        given: _Input,
        out: np.ndarray,
        *,
        after: int = PLAIN,
        to: _Input | None = None,
        counter: int = FIRST_TAKEN,
        rows: int = ALL_ROWS,
    ) -> None:
        """`to`: the input that the result becomes, quantized as it is made where its rows have no gaps."""
        self.inputs.append((len(self._rows), f"{name}.weight", given.x))
        matrix = self._weights.matrices[f"{name}.weight"]
        activations = matrix.activations(self._activations)
        packed, bias = matrix.packed, self._weights.vectors.get(f"{name}.bias")
        if bias is not None:
            padded = aligned((out.shape[1],), np.float32)
            padded[: bias.size] = bias
            self._kept.append(padded)
        x = given.x if activations == "float32" else given.records
        piece = piece_groups(activations, packed.n_groups, self._n_threads)
        quantizer = 0
        if to is not None and to.x is out:
            quantizer = self._quantizer(self._weights.matrices[name.replace("ffn_up", "ffn_down") + ".weight"])
        addresses = [a.ctypes.data for a in (packed.data, x, out)]
        self._add(
            [
                *(op_address("product"), matmul_address(packed.format, activations), *addresses),
                *(packed.n_columns, out.shape[1], packed.n_groups, 0 if bias is None else padded.ctypes.data),
                *(after, counter, piece, rows),
                *(quantizer, 0 if to is None else to.records.ctypes.data),
            ]
        )

    def _attention(self, i: int, *, quantizes: bool) -> None:
        config, shape = self._config, self._cache_shape
        scale = np.float32(1) / np.sqrt(np.float32(config.head_dim))
        to = self._in_dense
        quantizes = quantizes and config.head_dim % 32 == 0
        quantizer = self._quantizer(self._weights.matrices[f"blk.{i}.attn_output.weight"]) if quantizes else 0
        self._add(
            [
                *(op_address(f"attention_{shape.kind}"), self._qkv.ctypes.data, self._qkv.shape[1], to.x.ctypes.data),
                *(self._cache[i].ctypes.data, config.head_dim, shape.width(config), config.n_heads),
                *(config.rotary_dims, shape.n_context, self._cos_sin.ctypes.data, int(scale.view(np.int32))),
                self._cache[i, 0].nbytes,
                *(quantizer, to.records.ctypes.data),
            ]
        )

    def _add(self, row: list[int]) -> None:
        self._rows.append(row + [0] * (OP_WORDS - len(row)))


def workspace_bytes(config: ModelConfig, n_tokens: int, n_context: int) -> int:
    """Memory of an `OpList` for steps of so many tokens, in a context of a multiple of LANES."""
    hidden, stride, n_ffn = config.hidden, rounded_up(config.hidden, LANES), rounded_up(config.n_ffn, LANES)
    rows = 4 * stride + rounded_up(3 * hidden, LANES) + LANES + n_ffn + 3 * hidden
    rows += config.n_ffn if n_ffn != config.n_ffn else 0  # else it is the array that ffn_up writes
    records = 3 * records_bytes(n_tokens, hidden) + records_bytes(n_tokens, config.n_ffn)
    return n_tokens * (4 * rows + 8) + records + n_context * config.rotary_dims * 4


def scratch_bytes(config: ModelConfig, n_context: int, activations: str) -> int:
    """What one thread needs for a product, for attention or for a norm."""
    attention = 4 * (8 * (n_context + config.head_dim + LANES) + LANES)
    return rounded_up(max(product_scratch(SLICE_TOKENS[activations]), attention, 4 * (config.hidden + LANES)), 64)


def _rotation_table(config: ModelConfig, n_context: int) -> np.ndarray:
    """Cosines, then sines, of every position: f32 [n_context, rotary_dims].

    Angles are float32 products, as in transformers 5 (modeling_gpt_neox.py, GPTNeoXRotaryEmbedding).
    """
    exponents = np.arange(0, config.rotary_dims, 2, dtype=np.float32) / np.float32(config.rotary_dims)
    frequencies = np.float32(1) / np.float32(config.rope_base) ** exponents
    angles = np.arange(n_context, dtype=np.float32)[:, None] * frequencies[None, :].astype(np.float32)
    table = aligned((n_context, config.rotary_dims), np.float32)
    table[:] = np.concatenate([np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))], axis=1)
    return table
