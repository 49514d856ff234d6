"""A JSON file that must hold one object: read whole, bounded, and refused with one line when it is anything else.

Knows no key.
"""

from __future__ import annotations

import json
import os
from collections import Counter

from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile

MAX_BYTES = 64 << 20  # the largest real one, a tokenizer.json, has 2.5 MB
MAX_DEPTH = 64  # real ones nest some six deep; what is deeper could end the stack of whoever prints it


def read_text(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a file; raises StorageError or ModelFileError."""
    with RegularFile(path) as file:
        if file.size > MAX_BYTES:
            raise ModelFileError(f"expected at most {MAX_BYTES} bytes, got {file.size}", path=path)
        data = file.read(0, file.size)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ModelFileError("not UTF-8 text", path=path, offset=e.start) from e


def read_json_object(path: str | os.PathLike[str]) -> dict[str, object]:
    """The object in a JSON file.

    Raises  StorageError when it cannot be read; ModelFileError when it is no JSON, holds anything but an object,
            gives a key twice, nests too deeply, or has text that no UTF-8 file could hold.
    """
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as e:
        raise ModelFileError(f"not valid JSON: {e.msg} at line {e.lineno}", path=path) from e
    except (ValueError, RecursionError) as e:
        raise ModelFileError(f"not usable JSON: {e}", path=path) from e
    if _is_deeper(value, MAX_DEPTH):
        raise ModelFileError(f"not usable JSON: nested deeper than {MAX_DEPTH}", path=path)
    if not isinstance(value, dict):
        raise ModelFileError(f"expected a JSON object, got {type(value).__name__}", path=path)
    # Half of a surrogate pair can be written as an escape, but not as UTF-8, which is what a GGUF stores.
    if "\\ud" in text.lower() and any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False)):
        raise ModelFileError("has half of a surrogate pair in a string", path=path)
    return value


def _is_deeper(value: object, most: int) -> bool:
    """Whether lists and objects lie more than `most` deep in each other; asks layer by layer, not by recursion."""
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
