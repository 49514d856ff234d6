"""What the files beside a GGUF say of it where GGUF has no key: the name of its activation.

Knows neither tensors nor how an activation is computed.
"""

from __future__ import annotations

from pathlib import Path

from pythia_gguf.arch.gpt_neox import GELU_OF_ACT
from pythia_gguf.errors import PythiaGGUFError
from pythia_gguf.json_file import read_json_object

# Of a manifest or config.json.
_LARGEST_BYTES = 256 << 20


def act_beside(path: Path) -> str | None:
    """`hidden_act` of manifest.json, else of config.json, in the folder of a file; None where neither tells a GELU."""
    for name in ("manifest.json", "config.json"):
        try:
            act = read_json_object(path.parent / name, most_bytes=_LARGEST_BYTES, allow_nan=True).get("hidden_act")
        except PythiaGGUFError:
            continue
        if isinstance(act, str) and act in GELU_OF_ACT:
            return act
    return None
