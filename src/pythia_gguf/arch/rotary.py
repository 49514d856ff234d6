"""The rotary keys of a config.json, in every spelling of transformers 4 and 5, with the one meaning of transformers 5.

Source: transformers 5.24, models/gpt_neox/configuration_gpt_neox.py `convert_rope_params_to_dict`: it takes values from
rope_scaling, or else from rope_parameters, and missing ones from rotary_emb_base and rotary_pct. transformers 4.57.6
reads only the last two. Neither follows rope_theta or partial_rotary_factor at the top, which 4 writes beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pythia_gguf.arch.keys import Keys
from pythia_gguf.errors import one_line

DEFAULT_ROPE_BASE = 10000.0  # also what llama.cpp takes when a file has no key for it
ROPE_BASES = (1.0, 1e12)
_OBJECTS = ("rope_scaling", "rope_parameters")
# (key inside the objects, ignored at the top; key at the top; default; limits)
_VALUES = (
    ("rope_theta", "rotary_emb_base", DEFAULT_ROPE_BASE, ROPE_BASES),
    ("partial_rotary_factor", "rotary_pct", 0.25, (0.0, 1.0)),
)
_TYPES = ("rope_type", "type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """How positions are rotated.

    base   base of the frequencies
    share  share of each head's dimensions that are rotated
    notes  keys that were left out, and where transformers 4 would compute something else; one line each
    """

    base: float
    share: float
    notes: tuple[str, ...]


def read_rotary(keys: Keys) -> Rotary:
    """Read them; raises ModelFileError for an impossible value and for scaled positions, which are not supported."""
    objects = {name: _object(keys, name) for name in _OBJECTS}
    name = next((name for name, rope in objects.items() if rope), "rope_parameters")
    rope, notes = objects[name], []
    if all(objects.values()) and objects["rope_scaling"] != objects["rope_parameters"]:
        notes.append("rope_parameters was left out: where there is a rope_scaling too, transformers 5 reads that one")
    notes += _plain(keys, rope, name)
    values = []
    for inner, top, default, limits in _VALUES:
        older = value = keys.number(top, default, *limits)
        if inner in rope:
            value = keys.check_number(rope[inner], f"{name}.{inner}", *limits)
        if value != older:
            notes.append(f"{name}.{inner} {value:g} counts, as in transformers 5; transformers 4 would take {older:g}")
        ignored = keys.get(inner)
        if ignored is not None and ignored != value:
            shown = one_line(repr(ignored), 40)
            notes.append(
                f"{inner} {shown} at the top was left out for {value:g}, as transformers does. If the model needs it,"
                f" call it {top}"
            )
        values.append(value)
    return Rotary(base=values[0], share=values[1], notes=tuple(notes))


def _object(keys: Keys, key: str) -> Mapping[str, object]:
    value = keys.get(key, {})
    if not isinstance(value, dict):
        keys.fail(f"expected an object or null, got {value!r}", key)
    return value


def _plain(keys: Keys, rope: Mapping[str, object], name: str) -> list[str]:
    """Refuse scaled positions; returns notes on keys that mean nothing without them."""
    factor = rope.get("factor")
    for key in _TYPES:
        kind = rope.get(key, "default")
        if kind != "default" and not (kind == "linear" and factor == 1):
            keys.fail(f"scaled rotary positions are not supported, got {kind!r}", f"{name}.{key}")
    unknown = [key for key in rope if key not in (*_TYPES, *(inner for inner, *_ in _VALUES))]
    for key in unknown:
        if isinstance(rope[key], dict):
            keys.fail("expected one set of rotary keys for all layers, got an object", f"{name}.{one_line(key, 60)}")
    if unknown == ["factor"] and factor == 1:
        return []
    return [f"{name}.{one_line(key, 60)} was left out: it means nothing without scaling" for key in unknown]
