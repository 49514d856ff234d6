"""Checks of arguments: a wrong type is a TypeError, a value out of range a UsageError, and both name the argument.

Each function says what its own arguments may be. NaN is in no range, and True is no number.

    @checked                           on a public function: each argument must have the type of its annotation
    whole_number(1)("threads", value)  for one value with more rules than its type
"""

from __future__ import annotations

import functools
import inspect
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from pythia_gguf.errors import Argument, PythiaGGUFError, UsageError, nearest, one_line

# Takes an argument's name and value; gives the value as a plain Python one, or raises.
Check = Callable[[str, Any], Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
    """Decorator: arguments whose annotation stands in `_CHECK_OF` are of that type, or it is a TypeError.

    What an error advises is left out where it names an argument that the function does not have: whatever raised the
    error knows only that some of its callers have it.
    """
    signature = inspect.signature(function)
    checks = {n: _CHECK_OF[p.annotation] for n, p in signature.parameters.items() if p.annotation in _CHECK_OF}

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        for name in given.keys() & checks.keys():
            checks[name](name, given[name])
        try:
            return function(*args, **options)
        except PythiaGGUFError as e:
            e.args = (e.said(lambda argument: str(argument) if argument.name in signature.parameters else None),)
            raise

    return cast(Function, call)


def check_fields(made: object, **checks: Check) -> None:
    """For `__post_init__` of a frozen dataclass: each named field checked, and kept as a plain Python value."""
    for name, check in checks.items():
        object.__setattr__(made, name, check(name, getattr(made, name)))


def whole_number(least: int, most: int | None = None) -> Check:
    """An int, or what stands for one, such as numpy's; no bool."""
    return lambda name, value: _within(name, _whole(name, value), least, most)


def number(least: float, most: float) -> Check:
    """A real number, of numpy's too; no bool, no text."""

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise _wrong_type(name, "a number", value)
        return float(_within(name, value, least, most))

    return check


def text(name: str, value: Any) -> str:
    """A str."""
    if not isinstance(value, str):
        raise _wrong_type(name, "a text", value)
    return value


def place(name: str, value: Any) -> str | os.PathLike[str]:
    """A path, or a name of the Hub."""
    if not isinstance(value, str | os.PathLike):
        raise _wrong_type(name, "a path", value)
    return value


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """A name of a list; raises UsageError with the nearest ones for another."""
    if value not in known:
        raise UsageError(Argument(name), f" must be one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that Python merely treats as true or false."""
    if not isinstance(value, bool):
        raise _wrong_type(name, "True or False", value)
    return value


def whole_numbers(name: str, value: Any) -> list[int]:
    """Several whole numbers, in an array of integers too."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a list of whole numbers", value)
    return [_whole(name, each, "a list of whole numbers") for each in value]


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Texts in their order; one text by itself is one, not its characters."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a text or a list of texts", value)
    found = tuple(value)
    for each in found:
        if not isinstance(each, str):
            raise _wrong_type(name, "a text or a list of texts", each)
    return found


def pairs_of_texts(name: str, value: Any) -> list[tuple[str, str]]:
    """Pairs in their order; neither a text of two characters nor a pair by itself is one."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, "a list of pairs of texts", value)
    found = []
    for pair in value:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise _wrong_type(name, "a list of pairs of texts", pair)
        found.append((pair[0], pair[1]))
    return found


def optional(check: Check) -> Check:
    """The same, or None."""
    return lambda name, value: None if value is None else check(name, value)


def refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError for an unknown option, as Python itself does, and names the nearest ones."""
    for name in names:
        if name not in known:
            raise TypeError(f"no option {name!r}{nearest(name, known)}")


def shown(value: Any) -> str:
    """On one line; Python refuses to write integers of more than 4,300 digits."""
    is_huge = isinstance(value, int) and value.bit_length() > 128
    return f"a number of {value.bit_length()} bits" if is_huge else one_line(repr(value), 80)


def _whole(name: str, value: Any, expected: str = "a whole number") -> int:
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


# Annotation, as it is written -> what it means. Functions check ranges themselves.
_CHECK_OF: dict[str, Check] = {
    "bool": flag,
    "bool | None": optional(flag),
    "str": text,
    "str | None": optional(text),
    "str | os.PathLike[str]": place,
    "str | os.PathLike[str] | None": optional(place),
    "str | Iterable[str]": texts,
    "int": _whole,
    "int | None": optional(_whole),
}
