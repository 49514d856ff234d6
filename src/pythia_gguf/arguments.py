"""Checks of arguments: a wrong type is a TypeError, a value out of range a UsageError, and both name the argument.

Knows no function: whoever has arguments says what they may be. NaN is in no range, and True is no number.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Iterable
from typing import Any

from pythia_gguf.errors import Argument, UsageError, nearest, one_line

# Takes an argument's name and value; gives the value as a plain Python one, or raises.
Check = Callable[[str, Any], Any]


def check_fields(made: object, **checks: Check) -> None:
    """For `__post_init__` of a frozen dataclass: each named field checked, and kept as a plain Python value."""
    for name, check in checks.items():
        object.__setattr__(made, name, check(name, getattr(made, name)))


def whole_number(least: int, most: int | None = None) -> Check:
    """An int, or what stands for one, such as numpy's; no bool."""
    return lambda name, value: _within(name, _whole(name, "a whole number", value), least, most)


def number(least: float, most: float) -> Check:
    """A real number, of numpy's too; no bool, no text."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise _wrong_type(name, "a number", value)
        return float(_within(name, value, least, most))

    return check


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that is merely taken for one."""
    if not isinstance(value, bool):
        raise _wrong_type(name, "True or False", value)
    return value


def whole_numbers(name: str, value: Any) -> list[int]:
    """Several of them, of an array of integers too."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "several whole numbers", value)
    return [_whole(name, "several whole numbers", each) for each in value]


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts in their order; one text by itself is one, not its characters."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a text, or several", value)
    found = tuple(value)
    for each in found:
        if not isinstance(each, str):
            raise _wrong_type(name, "a text, or several", each)
    return found


def pairs_of_texts(name: str, value: Any) -> list[tuple[str, str]]:
    """Pairs in their order; neither a text of two characters nor a pair by itself is one."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "pairs of texts", value)
    found = []
    for pair in value:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise _wrong_type(name, "pairs of texts", pair)
        found.append((pair[0], pair[1]))
    return found


def optional(check: Check) -> Check:
    """The same, or None."""
    return lambda name, value: None if value is None else check(name, value)


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError for an option that there is not, as Python itself does, with the nearest ones."""
    for name in names:
        if name not in known:
            raise TypeError(f"no option {name!r}{nearest(name, known)}")


def shown(value: Any) -> str:
    """On one line; Python refuses to write integers of more than 4,300 digits."""
    is_huge = isinstance(value, int) and value.bit_length() > 128
    return f"a number of {value.bit_length()} bits" if is_huge else one_line(repr(value), 80)


def _whole(name: str, expected: str, value: Any) -> int:
    try:
        whole = operator.index(value)
    except TypeError:
        raise _wrong_type(name, expected, value) from None
    if isinstance(value, bool):
        raise _wrong_type(name, expected, value)
    return whole


def _within(name: str, value: Any, least: float, most: float | None) -> Any:
    if most is None and not value >= least:
        raise UsageError(Argument(name), f" must be at least {least}, got {shown(value)}")
    if most is not None and not least <= value <= most:
        raise UsageError(Argument(name), f" must be between {least} and {most:g}, got {shown(value)}")
    return value


def _wrong_type(name: str, expected: str, value: Any) -> TypeError:
    return TypeError(f"{name} must be {expected}, got {type(value).__name__} {shown(value)}")
