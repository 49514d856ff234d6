"""What the files beside a GGUF say of it where GGUF has no key: the name of its activation.

Knows neither tensors nor how an activation is computed.
"""

from __future__ import annotations

from pathlib import Path

from pythia_gguf.arch.gpt_neox import GELU_OF_ACT
from pythia_gguf.errors import Argument, ModelFileError, PythiaGGUFError
from pythia_gguf.json_file import OtherJSONError, read_json_object

# Of a manifest or config.json.
_LARGEST_BYTES = 256 << 20


def act_beside(path: Path) -> str | None:
    """`hidden_act` of manifest.json, else of config.json, in the folder of a file; None where neither tells a GELU.

    Raises ModelFileError where one of them is there and cannot be read: to take the usual GELU in silence would be a
    guess that changes every number.
    """
    for name in ("manifest.json", "config.json"):
        beside = path.parent / name
        if not beside.is_file():
            continue
        try:
            act = read_json_object(beside, most_bytes=_LARGEST_BYTES, allow_nan=True).get("hidden_act")
        except PythiaGGUFError as e:
            if isinstance(e.__cause__, OtherJSONError):  # another program's file of that name
                continue
            raise ModelFileError(
                f"should tell which GELU {path.name} has, but: {e}",
                (". Mend it, or say ", Argument("gelu", "erf"), " or tanh"),
                path=beside,
            ) from e
        if isinstance(act, str) and act in GELU_OF_ACT:
            return act
    return None
