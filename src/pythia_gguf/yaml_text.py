"""YAML of people and of other programs: parsed within bounds, and every fault is one line."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import yaml

from pythia_gguf.errors import ModelFileError

MAX_CHARS = 1 << 18  # real ones have a few hundred; parsing this many takes about 3 s


def parse_yaml(text: str, path: str | os.PathLike[str], *, field: str | None = None, first_line: int = 1) -> Any:
    """The value that a text holds.

    path, field  where the text came from, for messages
    first_line   the number of its first line there
    Raises       ModelFileError when it is not YAML, or too large
    """

    def fail(message: str, cause: Exception | None = None) -> NoReturn:
        raise ModelFileError(message, path=path, field=field) from cause

    if len(text) > MAX_CHARS:
        fail(f"expected at most {MAX_CHARS} characters, got {len(text)}")
    try:
        # Aliases let a few lines stand for billions of values; nothing that we read needs one.
        if "*" in text and any(isinstance(t, yaml.AliasToken) for t in yaml.scan(text, yaml.SafeLoader)):
            fail("YAML aliases are not supported")
        data = yaml.safe_load(text)
        repr(data)  # fails for what no message or key could show: 0xfff... may have more digits than Python prints
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + first_line if e.problem_mark else first_line
        fail(f"not valid YAML: {e.problem}, line {line}", e)
    except (yaml.YAMLError, RecursionError) as e:
        fail(f"not valid YAML: {e}", e)
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as e:
        # Exceptions that PyYAML lets through when a value does not fit its tag, as in `!!int x`, `2023-13-45`,
        # `9:9:...:9.5`.
        fail(f"a value is not what its YAML type asks for: {e}", e)
    return data
