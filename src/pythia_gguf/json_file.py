"""JSON files: read whole and bounded, with one line for whatever is not as it should be; written so that all can read.

The reader of a file says by a shape which keys there must be, and of what kind.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pythia_gguf.errors import ModelFileError, Part, PythiaGGUFError, one_line
from pythia_gguf.files import RegularFile

MAX_BYTES = 64 << 20  # the largest real one, a tokenizer.json, has 2.5 MB
_LARGEST_BESIDE = 256 << 20  # a manifest names every tensor of every file
_MOST_DIGITS = 40  # no size, count, seed or hash has more
MAX_DEPTH = 64  # real ones nest some six deep; deeper ones could overflow the stack of a program that prints them


class OtherJSONError(ValueError):
    """JSON that holds something other than what was expected."""


# A file in whose folder a manifest may lie, or what the manifest of something in memory would say.
Place = Path | Mapping[str, Any]
# A type; a tuple of shapes, one of them must fit; [shape] for a list; {key: shape} for an object, where "key?" need
# not be there, and "*" stands for all keys that are not named; without it they may hold anything.
Shape = Any


def read_text(path: str | os.PathLike[str], most_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a file; raises StorageError or ModelFileError."""
    with RegularFile(path) as file:
        if file.size > most_bytes:
            raise ModelFileError(f"expected at most {most_bytes} bytes, got {file.size}", path=path)
        data = file.read(0, file.size)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ModelFileError("not UTF-8 text", path=path, offset=e.start) from e


def read_json_object(
    path: str | os.PathLike[str],
    shape: Shape = None,
    *,
    what: str = "",
    most_bytes: int = MAX_BYTES,
    allow_nan: bool = False,
) -> dict[str, Any]:
    """The object in a JSON file.

    shape   that it must have; None: any
    what    people call it, as in "not a report of pythia measure"
    allow_nan  let NaN and Infinity through, which Python's own json writes: for files of other programs
    Raises  StorageError when it cannot be read; ModelFileError when it is no JSON, holds anything but an object, gives
            a key twice, nests too deeply, has NaN for a number or text that no UTF-8 file could hold, or has another
            shape.
    """
    try:
        value = parse_json_object(read_text(path, most_bytes), allow_nan=allow_nan)
        if shape is not None:
            check_shape(value, shape)
    except ValueError as e:
        raise ModelFileError(f"not {what}: {e}" if what else str(e), path=path) from e
    return value


def objects_beside(
    place: Place, names: Iterable[str], tells: str, *ways_out: Part
) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The JSON files of these names in the folder of a file, those that are there and hold an object.

    place     the file; for something in memory what the first of them would say
    tells     what they should tell, for messages; "{}" in it stands for the file's name
    ways_out  what a user can do instead of mending them, for messages
    Raises  ModelFileError for one that cannot be read: going on without it would be a guess that changes numbers.
    """
    if isinstance(place, Mapping):
        yield Path(next(iter(names))), place
        return
    for name in names:
        beside = place.parent / name
        if not beside.is_file():
            continue
        try:
            yield beside, read_json_object(beside, most_bytes=_LARGEST_BESIDE, allow_nan=True)
        except PythiaGGUFError as e:
            if isinstance(e.__cause__, OtherJSONError):  # another program's file of that name
                continue
            raise ModelFileError(
                f"should tell {tells.format(place.name)}, but: {e}. Mend it", *ways_out, path=beside
            ) from e


def parse_json_object(text: str, *, allow_nan: bool = False) -> dict[str, Any]:
    """The object in a JSON text; raises ValueError with what is wrong, in one line."""
    numbers: dict[str, Any] = {} if allow_nan else {"parse_constant": _no_number, "parse_float": _finite}
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_bounded, **numbers)
    except json.JSONDecodeError as e:
        problem = e.msg.removesuffix(" at")
        raise ValueError(f"not valid JSON: {problem} at line {e.lineno}, column {e.colno}") from e
    except (ValueError, RecursionError) as e:
        raise ValueError(f"not usable JSON: {one_line(str(e))}") from e
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"not usable JSON: nested deeper than {MAX_DEPTH}")
    if not isinstance(value, dict):
        raise OtherJSONError(f"expected a JSON object, got {type(value).__name__}")
    # Half of a surrogate pair can be written as an escape, but not as UTF-8.
    if "\\ud" in text.lower() and any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False)):
        raise ValueError("has half of a surrogate pair in a string")
    return value


def check_shape(value: object, shape: Shape, where: str = "") -> None:
    """Raise ValueError where a value of JSON does not have the shape."""
    if isinstance(shape, tuple):
        _check_one_of(value, shape, where)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            _refuse(value, "a list", where)
        for i, entry in enumerate(value):
            check_shape(entry, shape[0], f"{where}[{i}]")
    elif isinstance(shape, dict):
        _check_object(value, shape, where)
    elif not _is(value, shape):
        _refuse(value, "null" if shape is None else _NAMES.get(shape, shape.__name__), where)


def json_text(
    value: object, *, indent: int | None = None, ascii_only: bool = True, default: Callable[[Any], Any] | None = None
) -> str:
    """Text of a value that any reader of JSON can read: NaN and Infinity are a ValueError and are never written.

    indent   None: on one line
    default  what to write for a value that JSON has no form for
    """
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False, default=default)


def without_nan(value: Any) -> Any:
    """The same value with null in place of NaN and Infinity, which is how JSON says that a figure does not exist."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    return [without_nan(entry) for entry in value] if isinstance(value, list | tuple) else value


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


def _is(value: object, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _check_one_of(value: object, shapes: tuple[Shape, ...], where: str) -> None:
    problem: ValueError | None = None
    for shape in shapes:
        try:
            check_shape(value, shape, where)
        except ValueError as e:
            problem = problem or e
        else:
            return
    assert problem is not None
    raise problem


def _check_object(value: object, shape: dict[str, Shape], where: str) -> None:
    if not isinstance(value, dict):
        _refuse(value, "an object", where)
    named = {key.removesuffix("?"): key for key in shape}
    if missing := [key for key, written in named.items() if written == key != "*" and key not in value]:
        raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
    for key, entry in value.items():
        written = named.get(key, "*")
        if written in shape:
            check_shape(entry, shape[written], f"{where}.{key}" if where else key)


def _refuse(value: object, expected: str, where: str) -> NoReturn:
    raise ValueError(
        f"{one_line(where, 80) + ': ' if where else ''}expected {expected}, got {one_line(_shown(value), 60)}"
    )


def _shown(value: object) -> str:
    """What `repr` gives, without the middle where it is long: `repr` of a large list takes longer than reading it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


def _is_deeper(value: object, most: int) -> bool:
    """Whether lists and objects nest more than `most` deep; looks layer by layer, because recursion could overflow."""
    layer = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        children = (v.values() if isinstance(v, dict) else v for v in layer)
        layer = [child for group in children for child in group if isinstance(child, (dict, list))]
    return bool(layer)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {twice!r} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _bounded(text: str) -> int:
    if len(text) > _MOST_DIGITS:  # which float() might refuse, and int() after 4,300
        raise ValueError(f"{text[:10]}... is a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value
