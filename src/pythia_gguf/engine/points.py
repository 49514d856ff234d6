"""The points at which hooks look into a step: their names, the values there, and how a hook changes them.

Names and values are as in TransformerLens, without "hook_" and with tokens as the first axis of every array. A point is
not named after a tensor: it may hold the values that a matrix multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.errors import UsageError, nearest, one_line
from pythia_gguf.kernels.op_words import ALL_ROWS

EMBED, LOGITS = "embed", "logits"
# Points of a layer, as "blocks.3.attn.z", in the order of the computation; each with the matrix that multiplies its
# values.
LAYER_POINTS = {
    "resid_pre": None,  # [T, hidden] the residual stream before the layer
    "ln1.scale": None,  # [T, 1] root of variance plus epsilon
    "ln1.normalized": "attn_qkv",  # [T, hidden] after weight and bias
    "attn.q": None,  # [T, n_heads, head_dim]; k and v too
    "attn.k": None,
    "attn.v": None,
    "attn.rot_q": None,  # [T, n_heads, head_dim] turned by their positions
    "attn.rot_k": None,
    "attn.scores": None,  # [T, n_heads, positions] scaled; minus infinity where a token may not look
    "attn.pattern": None,  # [T, n_heads, positions] their softmax
    "attn.z": "attn_output",  # [T, n_heads, head_dim]
    "attn_out": None,  # [T, hidden]
    "resid_mid": None,  # [T, hidden] between the halves; only where the second reads what the first gave
    "ln2.scale": None,
    "ln2.normalized": "ffn_up",
    "mlp.pre": None,  # [T, n_ffn] before the activation
    "mlp.post": "ffn_down",  # [T, n_ffn] after it
    "mlp_out": None,  # [T, hidden]
    "resid_post": None,  # [T, hidden] the residual stream after the layer
}
# These have rows only for tokens whose logits are wanted.
END_POINTS = {"ln_final.scale": None, "ln_final.normalized": "output", LOGITS: None}


@dataclass(frozen=True, slots=True, kw_only=True)
class HookPlace:
    """Where a hook is called: a point, and the token of each row.

    name       of the point
    seqs       i64 [rows], number of the sequence in the session
    positions  i64 [rows], position in that sequence
    """

    name: str
    seqs: np.ndarray
    positions: np.ndarray


# A hook gets the values at a point, rows first. It may change them in place, or return an array to use instead.
Hook = Callable[[np.ndarray, HookPlace], np.ndarray | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place in a list of ops, and the values there, which an op before has written and one after reads.

    at        stop before this op
    array     f32 [n_tokens, ...]; in attention [n_tokens, n_heads, positions]
    rows      ALL_ROWS or WANTED_ROWS
    masked    the value where a token may not look; None: the last axis is no axis of positions
    factors   f32 [n_tokens, n_heads]: the values are the array times these; None: the array itself
    """

    name: str
    at: int
    array: np.ndarray
    rows: int = ALL_ROWS
    masked: float | None = None
    factors: np.ndarray | None = None

    def values(self, place: HookPlace) -> np.ndarray:
        """The values of the rows of a step: the memory itself, or a copy where there are factors."""
        n = len(place.positions)
        x = self.array[:n]
        if self.masked is not None:
            x = x[..., : int(place.positions.max()) + 1]
        return x if self.factors is None else x * self.factors[:n, :, None]

    def where_seen(self, x: np.ndarray, place: HookPlace) -> np.ndarray:
        """The values, with zeros where a token may not look."""
        return x if self.masked is None else np.where(_may_look(x, place), x, 0)

    def change(self, x: np.ndarray, given: np.ndarray | None, place: HookPlace) -> None:
        """Write back what a hook has made of `values`, in their memory or in an array of its own.

        Raises ValueError for another shape, UsageError for a change where a token may not look.
        """
        if given is not None and given is not x:
            if np.shape(given) != x.shape:
                raise ValueError(f"{self.name}: a hook gave an array {np.shape(given)}, expected {x.shape}")
            x[...] = given
        if self.masked is not None and not (_may_look(x, place) | (x == self.masked)).all():
            raise UsageError(f"{self.name} can be changed only where a token may look: itself and those before it")
        if self.factors is not None:
            self._take_rows(x)

    def _take_rows(self, x: np.ndarray) -> None:
        """Replace array and factor of the rows that were changed; the other rows keep their bits."""
        n, width = len(x), x.shape[-1]
        assert self.factors is not None
        changed = (x != self.array[:n, :, :width] * self.factors[:n, :, None]).any(axis=-1)
        self.array[:n, :, :width][changed] = x[changed]
        self.factors[:n][changed] = 1


def _may_look(x: np.ndarray, place: HookPlace) -> np.ndarray:
    """Whether the token of a row may look at a position: [n_tokens, 1, positions]."""
    return np.arange(x.shape[-1])[None, None, :] <= place.positions[:, None, None]


def matrix_at(name: str) -> str | None:
    """The name in GGUF of the weight that multiplies the values at a point; None where there is none."""
    if name in END_POINTS:
        matrix = END_POINTS[name]
        return matrix and f"{matrix}.weight"
    _, _, rest = name.partition(".")
    layer, _, place = rest.partition(".")
    matrix = LAYER_POINTS.get(place)
    return matrix and f"blk.{layer}.{matrix}.weight"


def point_names(config: ModelConfig) -> list[str]:
    """All points of a model, in the order of the computation."""
    kinds = [kind for kind in LAYER_POINTS if kind != "resid_mid" or not config.parallel_residual]
    return [EMBED, *(f"blocks.{i}.{kind}" for i in range(config.n_layers) for kind in kinds), *END_POINTS]


def hooks_by_name(hooks: Mapping[str, Hook], names: Iterable[str]) -> dict[str, list[Hook]]:
    """The hooks of each point asked for; in a name `*` stands for anything, as in "blocks.*.resid_post".

    names   all points of the model
    Raises  UsageError for a name that no point has
    """
    names = list(names)
    found: dict[str, list[Hook]] = {}
    for asked, hook in hooks.items():
        meant = [name for name in names if fnmatchcase(name, asked)]
        if not meant:
            raise UsageError(f"no point {one_line(asked)}{nearest(asked, names)}")
        for name in meant:
            found.setdefault(name, []).append(hook)
    return found
