"""The YAML front matter of a README.md: what a model card says about itself in keys.

It is as tolerant as llama.cpp 0c1e57098, gguf-py/gguf/metadata.py (`load_model_card`).
"""

from __future__ import annotations

import os
from typing import NoReturn

import yaml

from pythia_gguf.errors import ModelFileError

MAX_CHARS = 1 << 18  # real ones have a few hundred; parsing this many takes about 3 s


def front_matter(readme: str, path: str | os.PathLike[str]) -> dict[str, object]:
    """The keys between the first line `---` and the next; {} when the text does not begin so, or holds no mapping.

    readme  text of the README.md
    path    where it came from, for messages
    Raises  ModelFileError when it is not YAML, or too large.
    """
    lines = readme.splitlines()
    if not lines or lines[0] != "---":
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    text = "\n".join(lines[1:end]) + "\n"
    # `- no` is Norwegian in a list of languages, not false; tabs are no YAML, but model cards have them.
    text = text.replace("- no\n", '- "no"\n').replace("\t", "  ")
    if len(text) > MAX_CHARS:
        _fail(f"expected at most {MAX_CHARS} characters, got {len(text)}", path)
    try:
        # Aliases let a few lines stand for billions of values; no model card needs one.
        if "*" in text and any(isinstance(t, yaml.AliasToken) for t in yaml.scan(text, yaml.SafeLoader)):
            _fail("YAML aliases are not supported", path)
        data = yaml.safe_load(text)
        repr(data)  # fails for what no message or key could show: 0xfff... may have more digits than Python prints
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 2 if e.problem_mark else 1
        _fail(f"not valid YAML: {e.problem}, line {line}", path, e)
    except (yaml.YAMLError, RecursionError) as e:
        _fail(f"not valid YAML: {e}", path, e)
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as e:
        # Exceptions that PyYAML lets through when a value does not fit its tag, as in `!!int x`, `2023-13-45`,
        # `9:9:...:9.5`.
        _fail(f"a value is not what its YAML type asks for: {e}", path, e)
    return data if isinstance(data, dict) else {}


def _fail(message: str, path: str | os.PathLike[str], cause: Exception | None = None) -> NoReturn:
    raise ModelFileError(message, path=path, field="front matter") from cause
