"""Names of activations: the formula that transformers means by each, and the name in the files beside a GGUF.

A GGUF has no key for its activation, so it is read from manifest.json or config.json in the same folder.
"""

from __future__ import annotations

from pythia_gguf.errors import Argument
from pythia_gguf.json_file import Place, objects_beside

# The formula behind each activation name of transformers (activations.py); llama.cpp always computes tanh.
GELU_OF_ACT = {
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
}
DEFAULT_ACT = "gelu"  # of transformers, and of every config in the suite


def act_beside(place: Place) -> str | None:
    """`hidden_act` of manifest.json, else of config.json, beside a GGUF; None where neither names a GELU.

    Raises ModelFileError where one of the files exists and cannot be read: to take the usual GELU silently would be a
    guess that changes every number.
    """
    way_out = (", or say ", Argument("gelu", "erf"), " or tanh")
    for _, keys in objects_beside(place, ("manifest.json", "config.json"), "which GELU {} has", way_out):
        act = keys.get("hidden_act")
        if isinstance(act, str) and act in GELU_OF_ACT:
            return act
    return None


def gelu_beside(place: Place) -> str:
    """The formula of that activation, "erf" or "tanh"; erf where the files beside name none."""
    return GELU_OF_ACT[act_beside(place) or DEFAULT_ACT]
