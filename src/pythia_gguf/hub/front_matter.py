"""The YAML front matter of a README.md: what a model card says about itself in keys.

It is as tolerant as llama.cpp 0c1e57098, gguf-py/gguf/metadata.py (`load_model_card`).
"""

from __future__ import annotations

import os

from pythia_gguf.yaml_text import parse_yaml


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
    data = parse_yaml(text, path, field="front matter", first_line=2)
    return data if isinstance(data, dict) else {}
