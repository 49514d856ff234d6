"""Builds the ops of a step: the vocabulary in which the blocks of every architecture are written.

Where no hook looks inside, ops do as much as they can at once: a norm adds the results of products, and the op that
makes the input of a product quantizes it. A list for hooks has the same float operations in the same order, but it
stops between two ops where a hook wants to see, and quantizes only after that, so that the model goes on with what the
hook has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pythia_gguf.engine.kv_tiles import Tiles
from pythia_gguf.engine.points import Point
from pythia_gguf.engine.runner import Runner
from pythia_gguf.engine.workspace import Buffer, Workspace
from pythia_gguf.kernels.driver import op_address
from pythia_gguf.kernels.matmul import matmul_address, piece_groups, quantizer_address
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.op_words import (
    ALL_ROWS,
    GATHERED_ROWS,
    GELU_ERF,
    GELU_TANH,
    NO_WAIT,
    OP_WORDS,
    PLAIN,
    WANTED_ROWS,
    ActivationOp,
    AttentionOp,
    InputOp,
    NormOp,
    NormPartOp,
    ProductOp,
    SumOp,
)
from pythia_gguf.kernels.threads import FIRST_TAKEN

_GELUS = {"erf": GELU_ERF, "tanh": GELU_TANH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """The residual stream between two ops.

    here   the rows, before `added` is added to them
    there  the buffer in which a norm may keep the sum
    added  results of products, at most two
    """

    here: Buffer
    there: Buffer
    added: tuple[Buffer, ...] = ()

    def plus(self, *given: Buffer) -> Residual:
        """The stream with results of products still to be added."""
        return replace(self, added=given)

    def kept(self, *, gathered: bool = False) -> Residual:
        """The stream after a norm that keeps it: in the other buffer, unless nothing was added or gathered."""
        return Residual(here=self.there, there=self.here) if self.added or gathered else self


class OpBuilder:
    """Collects ops, and the points at which hooks stop.

    space   buffers
    asked   names of points where hooks look inside; may be empty
    points  the points asked for, in the order of the ops
    n_body  ops that every step needs; the ops after them do only rows whose logits are wanted
    """

    def __init__(self, runner: Runner, space: Workspace, tiles: Tiles, asked: frozenset[str]) -> None:
        """No op yet; arguments as for `OpList`."""
        self.config, self.space, self.asked = runner.config, space, asked
        self.points: list[Point] = []
        self.n_body: int | None = None
        # Keeps padded biases alive: ops have their addresses.
        self.biases: list[np.ndarray] = []
        self._weights, self._activations, self._n_threads = runner.weights, runner.activations, runner.threads
        self._tiles, self._gelu = tiles, _GELUS[runner.gelu]
        self._rows: list[list[int]] = []

    @property
    def n_ops(self) -> int:
        """Ops so far."""
        return len(self._rows)

    def array(self) -> np.ndarray:
        """The ops, i64 [n, OP_WORDS]."""
        ops = aligned((len(self._rows), OP_WORDS), np.int64)
        ops[:] = self._rows
        return ops

    def go_on(self) -> None:
        """Let threads go on from the last op to the next without waiting for each other."""
        self._rows[-1][NO_WAIT] = 1

    def only_wanted_rows(self) -> None:
        """Declare that all ops from here on are only for rows whose logits are wanted."""
        assert self.n_body is None
        self.n_body = self.n_ops

    def stop(
        self,
        name: str,
        array: np.ndarray,
        *,
        rows: int = ALL_ROWS,
        masked: float | None = None,
        factors: np.ndarray | None = None,
    ) -> None:
        """Let hooks see an array here, if they ask for this point."""
        if name in self.asked:
            point = Point(name=name, at=self.n_ops, array=array, rows=rows, masked=masked, factors=factors)
            self.points.append(point)

    def residual(self, name: str, x: Residual) -> Residual:
        """A point of the residual stream. A list for hooks makes the sum here; otherwise the next norm makes it."""
        if not self.asked:
            return x
        if x.added:
            a, b = [buffer.address for buffer in x.added] + [0] * (2 - len(x.added))
            self._add("sum", SumOp(x=x.here.address, stride=x.here.stride, added_a=a, added_b=b))
        self.stop(name, x.here.array[:, : x.here.n_columns])
        return replace(x, added=())

    def norm(
        self,
        name: str,
        x: Residual,
        to: Buffer,
        *,
        reader: str,
        point: str,
        begins: int = 0,
        rows: int = ALL_ROWS,
        keeps: bool = False,
    ) -> None:
        """LayerNorm of the residual stream, in the form that the matrix `reader` multiplies.

        begins  the thread that does the first row
        keeps   whether the sum of x goes to its other buffer
        """
        scale, normalized = f"{point}.scale", f"{point}.normalized"
        vectors = self._weights.vectors
        words = NormOp(
            x=x.here.address,
            stride=x.here.stride,
            n=to.n_columns,
            weight=vectors[f"{name}.weight"].ctypes.data,
            bias=vectors[f"{name}.bias"].ctypes.data,
            eps=_bits(self.config.layer_norm_eps),
            out=to.address,
            quantizer=0 if {scale, normalized} & self.asked else self._quantizer(reader),
            records=to.records_address,
            begins=begins,
            rows=rows,
            added_a=x.added[0].address if x.added else 0,
            added_b=x.added[1].address if len(x.added) > 1 else 0,
            total=x.there.address if keeps and (x.added or rows == GATHERED_ROWS) else 0,
        )
        shown = WANTED_ROWS if rows == GATHERED_ROWS else rows
        if scale in self.asked:
            assert not x.added
            scales = self.space.scales
            parts = {field: getattr(words, field) for field in NormPartOp._fields if field != "scales"}
            part = NormPartOp(**parts, scales=scales.ctypes.data)
            self._add("norm_scale", part)
            self.stop(scale, scales, rows=shown)
            self._add("norm_by_scale", part)
        else:
            self._add("norm", words)
        self.stop(normalized, to.array, rows=shown)
        if {scale, normalized} & self.asked:
            self.input(to, to, reader=reader, is_quantized=False, rows=shown)

    def input(self, x: Buffer, to: Buffer, *, reader: str, is_quantized: bool, rows: int = ALL_ROWS) -> None:
        """Rows in the form that the matrix `reader` multiplies, unless the op that made x has made it already."""
        quantizer = self._quantizer(reader)
        if x.array is to.array and (is_quantized or not quantizer):
            return
        words = InputOp(
            x=x.address,
            stride=x.stride,
            n=to.n_columns,
            out=to.address,
            quantizer=quantizer,
            records=to.records_address,
            rows=rows,
        )
        self._add("input", words)

    def product(
        self,
        name: str,
        given: Buffer,
        out: Buffer,
        *,
        point: str | None = None,
        counter: int = FIRST_TAKEN,
        rows: int = ALL_ROWS,
    ) -> None:
        """The matrix `name` times rows, and its bias."""
        self._add("product", self._product(name, given, out, counter=counter, rows=rows))
        if point is not None:
            self.stop(point, out.array[:, : out.n_columns])

    def activated_product(
        self,
        name: str,
        given: Buffer,
        out: Buffer,
        to: Buffer,
        *,
        reader: str,
        point: str,
        counter: int = FIRST_TAKEN,
        rows: int = ALL_ROWS,
    ) -> bool:
        """A product and its activation, the input `to` of the matrix `reader`; returns whether that is quantized.

        The op quantizes it at once where its rows have no gaps and no hook may change it.
        """
        pre, post = f"{point}.pre", f"{point}.post"
        quantizes = out.array is to.array and not {pre, post} & self.asked
        words = self._product(name, given, out, counter=counter, rows=rows)
        after = PLAIN if pre in self.asked else self._gelu
        quantizer = self._quantizer(reader) if quantizes else 0
        self._add("product", words._replace(after=after, quantizer=quantizer, records=to.records_address))
        shown = out.array[:, : out.n_columns]
        if pre in self.asked:
            self.stop(pre, shown)
            self._add("activation", ActivationOp(x=out.address, stride=out.stride, kind=self._gelu))
        self.stop(post, shown)
        return quantizes

    def attention(self, i: int, *, reader: str, point: str, quantizes: bool) -> bool:
        """Attention of layer i, from `space.qkv` to `space.in_dense`, the input of the matrix `reader`.

        quantizes  whether the op may quantize its result
        Returns    whether it does
        """
        config, space, cached = self.config, self.space, self._tiles.kind
        heads = (-1, config.n_heads, config.head_dim)
        q, k, v = (space.qkv.array[:, j * config.hidden : (j + 1) * config.hidden].reshape(heads) for j in range(3))
        z, scores, pattern = f"{point}.z", f"{point}.scores", f"{point}.pattern"
        quantizes = quantizes and z not in self.asked and config.head_dim % 32 == 0
        words = self._attention(i, self._quantizer(reader) if quantizes else 0)
        for name, x in (("q", q), ("k", k), ("v", v)):
            self.stop(f"{point}.{name}", x)
        if {f"{point}.rot_q", f"{point}.rot_k"} & self.asked:
            self._add("rotate", words)
            words = words._replace(n_rotated=0)
            self.stop(f"{point}.rot_q", q)
            self.stop(f"{point}.rot_k", k)
        if {scores, pattern} & self.asked:
            words = words._replace(scores=space.scores.ctypes.data, factors=space.factors.ctypes.data)
            self._add(f"scores_{cached}", words)
            self.stop(scores, space.scores, masked=-np.inf)
            self._add("softmax", words)
            self.stop(pattern, space.scores, masked=0.0, factors=space.factors)
            self._add(f"mix_{cached}", words)
        else:
            self._add(f"attention_{cached}", words)
        self.stop(z, space.in_dense.array.reshape(heads))
        return quantizes

    def _product(self, name: str, given: Buffer, out: Buffer, *, counter: int, rows: int) -> ProductOp:
        matrix = self._weights.matrices[f"{name}.weight"]
        activations, packed = matrix.activations(self._activations), matrix.packed
        return ProductOp(
            matmul=matmul_address(packed.format, activations),
            weights=packed.data.ctypes.data,
            x=given.address if activations == "float32" else given.records_address,
            out=out.address,
            n_columns=packed.n_columns,
            stride=out.stride,
            n_groups=packed.n_groups,
            bias=self._padded_bias(f"{name}.bias", out.stride),
            after=PLAIN,
            counter=counter,
            piece_groups=piece_groups(activations, packed.n_groups, self._n_threads),
            rows=rows,
            quantizer=0,
            records=0,
        )

    def _attention(self, i: int, quantizer: int) -> AttentionOp:
        config, tiles, space = self.config, self._tiles, self.space
        return AttentionOp(
            qkv=space.qkv.address,
            stride=space.qkv.stride,
            out=space.in_dense.address,
            cache=tiles.layer_address(i),
            n_cached=tiles.n_from(i),
            head_dim=config.head_dim,
            width=tiles.width,
            n_heads=config.n_heads,
            n_rotated=config.rotary_dims,
            n_context=space.n_context,
            cos_sin=space.cos_sin.ctypes.data,
            scale=_bits(np.float32(1) / np.sqrt(np.float32(config.head_dim))),
            quantizer=quantizer,
            records=space.in_dense.records_address,
            scores=0,
            factors=0,
        )

    def _padded_bias(self, name: str, stride: int) -> int:
        """The address of a bias with zeros after it; 0 where there is none."""
        bias = self._weights.vectors.get(name)
        if bias is None:
            return 0
        padded = aligned((stride,), np.float32)
        padded[: bias.size] = bias
        self.biases.append(padded)
        return padded.ctypes.data

    def _quantizer(self, matrix: str) -> int:
        weight = self._weights.matrices[f"{matrix}.weight"]
        return quantizer_address(weight.packed.format, weight.activations(self._activations))

    def _add(self, kernel: str, words: NamedTuple) -> None:
        row = [op_address(kernel), *words]
        assert len(row) <= NO_WAIT
        self._rows.append(row + [0] * (OP_WORDS - len(row)))


def _bits(value: float | np.floating) -> int:
    return int(np.float32(value).view(np.int32))
