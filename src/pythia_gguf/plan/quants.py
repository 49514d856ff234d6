"""The menu: 19 quants, their numbers, and the rules of both mixes as tables.

Knows no tensor and no file. Rules are those of llama.cpp for a model without experts whose key and value heads equal
its query heads and whose output matrix is its own, as of every architecture that is read: mix 2026 is commit 0c1e57098
(src/llama-quant.cpp `llama_tensor_get_type_impl`), mix 2024 the state before pull request 19770, where the fused QKV
had a rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pythia_gguf.errors import Argument, UsageError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """One name of the menu.

    name       "Q4_K_M"
    file_type  number in `general.file_type` (llama.cpp include/llama.h `enum llama_ftype`)
    base       format of every weight that no rule names
    alias_of   the quant this is another name of, or None
    """

    name: str
    file_type: int
    base: str
    alias_of: str | None = None


# In the order of the model card, which is by size of the 410M model.
QUANTS: dict[str, Quant] = {
    q.name: q
    for q in (
        Quant(name="Q2_K", file_type=10, base="Q2_K"),
        Quant(name="Q3_K_S", file_type=11, base="Q3_K"),
        Quant(name="Q3_K", file_type=12, base="Q3_K", alias_of="Q3_K_M"),
        Quant(name="Q3_K_M", file_type=12, base="Q3_K"),
        Quant(name="Q3_K_L", file_type=13, base="Q3_K"),
        Quant(name="IQ4_XS", file_type=30, base="IQ4_XS"),
        Quant(name="Q4_0", file_type=2, base="Q4_0"),
        Quant(name="IQ4_NL", file_type=25, base="IQ4_NL"),
        Quant(name="Q4_K_S", file_type=14, base="Q4_K"),
        Quant(name="Q4_K", file_type=15, base="Q4_K", alias_of="Q4_K_M"),
        Quant(name="Q4_K_M", file_type=15, base="Q4_K"),
        Quant(name="Q4_1", file_type=3, base="Q4_1"),
        Quant(name="Q5_0", file_type=8, base="Q5_0"),
        Quant(name="Q5_K_S", file_type=16, base="Q5_K"),
        Quant(name="Q5_K", file_type=17, base="Q5_K", alias_of="Q5_K_M"),
        Quant(name="Q5_K_M", file_type=17, base="Q5_K"),
        Quant(name="Q5_1", file_type=9, base="Q5_1"),
        Quant(name="Q6_K", file_type=18, base="Q6_K"),
        Quant(name="Q8_0", file_type=7, base="Q8_0"),
    )
}
MIXES = ("2026", "2024")

# Names of file types outside the menu, to show what a GGUF says it is.
_PLAIN_FILE_TYPES = {0: "F32", 1: "F16", 32: "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A format for the layers of a role that a condition picks.

    format  name of the format
    layers  which, in words
    picks   (layer, number of layers) -> bool
    """

    format: str
    layers: str
    picks: Callable[[int, int], bool]


def more_bits(i: int, n: int) -> bool:
    """The layers that get more bits in the _M quants: the first eighth, the last eighth, every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _all(name: str) -> Rule:
    return Rule(format=name, layers="all layers", picks=lambda i, n: True)


def _first(count: int, name: str) -> Rule:
    return Rule(format=name, layers=f"first {count} layers", picks=lambda i, n: i < count)


def _first_part(part: int, name: str) -> Rule:
    return Rule(format=name, layers=f"first 1/{part} of the layers", picks=lambda i, n: i < n // part)


def _more_bits(name: str) -> Rule:
    return Rule(format=name, layers="first and last 1/8 of the layers, every third between", picks=more_bits)


# quant -> role -> rules, the first that picks the layer wins; none: the base format
_SHARED: dict[str, dict[str, tuple[Rule, ...]]] = {
    "Q2_K": {"attn_output": (_all("Q3_K"),), "ffn_down": (_all("Q3_K"),)},
    "Q3_K_M": {"attn_output": (_all("Q4_K"),), "ffn_down": (_first_part(16, "Q5_K"), _all("Q4_K"))},
    "Q3_K_L": {"attn_output": (_all("Q5_K"),), "ffn_down": (_all("Q5_K"),)},
    "Q4_K_S": {"ffn_down": (_first_part(8, "Q5_K"),)},
    "Q4_K_M": {"ffn_down": (_more_bits("Q6_K"),)},
    "Q5_K_M": {"ffn_down": (_more_bits("Q6_K"),)},
    "IQ4_NL": {"ffn_down": (_first_part(8, "Q5_K"),)},
    "IQ4_XS": {"ffn_down": (_first_part(8, "Q5_K"),)},
}
# With an importance matrix these rules take the place of those above.
_WITH_IMATRIX: dict[str, dict[str, tuple[Rule, ...]]] = {
    "Q4_0": {"ffn_down": (_first_part(8, "Q4_1"),)},
    "Q5_0": {"ffn_down": (_first_part(8, "Q5_1"),)},
    "IQ4_NL": {"ffn_down": ()},
    "IQ4_XS": {"ffn_down": ()},
}
_ATTN_QKV: dict[str, dict[str, tuple[Rule, ...]]] = {
    "2026": {
        "Q2_K": (_all("Q3_K"),),
        "Q3_K_M": (_first(2, "Q5_K"), _all("Q4_K")),
        "Q3_K_L": (_all("Q5_K"),),
        "Q4_K_S": (_first(4, "Q5_K"),),
        "Q4_K_M": (_more_bits("Q6_K"),),
        "Q5_K_M": (_more_bits("Q6_K"),),
    },
    "2024": {
        "Q3_K_M": (_all("Q4_K"),),
        "Q3_K_L": (_all("Q4_K"),),
        "Q4_K_M": (_all("Q5_K"),),
        "Q5_K_M": (_all("Q6_K"),),
    },
}

# Rows that are not whole blocks of 256 get a format with blocks of 32.
FALLBACKS: dict[str, dict[str, str]] = {
    "2026": {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
    "2024": {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
}


def rules_of(quant: Quant, role: str, mix: str, *, has_imatrix: bool) -> tuple[Rule, ...]:
    """The rules of a quant for a role, in the order they are tried."""
    name = quant.alias_of or quant.name
    if role == "attn_qkv":
        return _ATTN_QKV[mix].get(name, ())
    if has_imatrix and role in _WITH_IMATRIX.get(name, {}):
        return _WITH_IMATRIX[name][role]
    return _SHARED.get(name, {}).get(role, ())


def find_mix(name: str) -> str:
    """The mix of that name; raises UsageError for another."""
    if name not in MIXES:
        raise UsageError(Argument("mix"), f": unknown mix {name!r}: known are {', '.join(MIXES)}{nearest(name, MIXES)}")
    return name


def select_quants(names: str, argument: str = "quants") -> tuple[Quant, ...]:
    """Quants of a comma-separated list, or "all", in the order of the menu; raises UsageError for an unknown name.

    Upper and lower case count the same; an empty list and a repeated name are errors, which name the argument.
    """
    if names.strip().lower() == "all":
        return tuple(QUANTS.values())
    wanted = [part.strip() for part in names.split(",")]
    by_upper = {name.upper(): name for name in QUANTS}
    chosen = []
    for name in wanted:
        if name.upper() not in by_upper:
            hint = f"{nearest(name, QUANTS) or '.'} The menu: {', '.join(QUANTS)}"
            raise UsageError(Argument(argument), f": unknown quant {name!r}{hint}")
        chosen.append(by_upper[name.upper()])
    if doubled := {name for name in chosen if chosen.count(name) > 1}:
        raise UsageError(Argument(argument), f": quant named twice: {', '.join(sorted(doubled))}")
    return tuple(q for q in QUANTS.values() if q.name in chosen)


def canonical(quant: str) -> str:
    """A quant's own name: "Q4_K_M" for "q4_k"; any other word stays, in capitals."""
    found = QUANTS.get(quant.upper())
    return quant.upper() if found is None else found.alias_of or found.name


def quant_of_file_type(file_type: int) -> str | None:
    """The name that belongs to `general.file_type`; None for one that is not known here."""
    by_number = {q.file_type: q.name for q in QUANTS.values() if q.alias_of is None}
    return by_number.get(file_type) or _PLAIN_FILE_TYPES.get(file_type)
