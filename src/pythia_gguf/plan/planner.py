"""A quant applied to one model: which format each tensor gets, and why.

It takes pure data and returns pure data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pythia_gguf.formats import FORMATS
from pythia_gguf.plan.quants import FALLBACKS, Quant, Rule, rules_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTensor:
    """A tensor as the source has it.

    name, shape  GGUF name, (rows, columns) or (length,)
    role, layer  what it is for, as its architecture says; layer None outside the layers
    format       of its values
    """

    name: str
    shape: tuple[int, ...]
    role: str
    layer: int | None
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """What one tensor becomes, and the rule that says so."""

    tensor: str
    shape: tuple[int, ...]
    format: str
    reason: str

    @property
    def n_bytes(self) -> int:
        """Encoded size, without padding."""
        n_rows = self.shape[0] if len(self.shape) == 2 else 1
        return n_rows * FORMATS[self.format].row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A quant applied to one model, entries in the order of the source tensors given."""

    quant: Quant
    mix: str
    entries: tuple[PlanEntry, ...]


def make_plan(quant: Quant, mix: str, tensors: Iterable[SourceTensor], *, has_imatrix: bool = False) -> Plan:
    """The plan of a quant for the tensors of one model.

    has_imatrix  whether there is an importance matrix, no matter for which tensors
    Layer rules count the layers found in `tensors`, which must be all of the model's.
    """
    tensors = tuple(tensors)
    n_layers = len({t.layer for t in tensors} - {None})
    entries = []
    for t in tensors:
        name, reason = _choose(quant, mix, t, n_layers, has_imatrix)
        entries.append(PlanEntry(tensor=t.name, shape=t.shape, format=name, reason=reason))
    return Plan(quant=quant, mix=mix, entries=tuple(entries))


def keep_plan(tensors: Iterable[SourceTensor]) -> tuple[PlanEntry, ...]:
    """The unquantized file: every tensor stays as it is."""
    return tuple(PlanEntry(tensor=t.name, shape=t.shape, format=t.format, reason="kept") for t in tensors)


def _choose(quant: Quant, mix: str, t: SourceTensor, n_layers: int, has_imatrix: bool) -> tuple[str, str]:
    if len(t.shape) < 2 or not t.name.endswith(".weight") or t.role.endswith("_norm"):
        return t.format, "biases and norms stay as they are"
    rules = rules_of(quant, t.role, mix, has_imatrix=has_imatrix)
    wanted, reason = _by_rules(quant, rules, t, n_layers)
    return _fit(wanted, reason, mix, t.shape[-1])


def _by_rules(quant: Quant, rules: tuple[Rule, ...], t: SourceTensor, n_layers: int) -> tuple[str, str]:
    row = t.shape[-1]
    if t.role == "output":
        if row % FORMATS[quant.base].block_weights:
            return "Q8_0", f"row of {row} is not a multiple of {FORMATS[quant.base].block_weights} ({quant.base})"
        if quant.base != "Q8_0":
            return "Q6_K", "output matrix keeps more bits"
    for rule in rules:
        if t.layer is not None and rule.picks(t.layer, n_layers):
            return rule.format, f"{t.role}: {rule.layers}"
    return quant.base, f"base format of {quant.alias_of or quant.name}"


def _fit(wanted: str, reason: str, mix: str, row: int) -> tuple[str, str]:
    """The format wanted, or the one that llama.cpp takes in its place when a row is not whole blocks."""
    if row % FORMATS[wanted].block_weights == 0:
        return wanted, reason
    instead = FALLBACKS[mix].get(wanted, wanted)
    if row % FORMATS[instead].block_weights:
        instead = "F16"
    return instead, f"row of {row} is not a multiple of {FORMATS[wanted].block_weights} ({wanted})"
