"""What the files beside a GGUF say of it where GGUF has no key: the name of its activation.

Knows neither tensors nor how an activation is computed.
"""

from __future__ import annotations

from pythia_gguf.arch.gpt_neox import GELU_OF_ACT
from pythia_gguf.errors import Argument
from pythia_gguf.json_file import Place, objects_beside


def act_beside(place: Place) -> str | None:
    """`hidden_act` of manifest.json, else of config.json, beside a GGUF; None where neither tells a GELU.

    Raises ModelFileError where one of them is there and cannot be read: to take the usual GELU in silence would be a
    guess that changes every number.
    """
    way_out = (", or say ", Argument("gelu", "erf"), " or tanh")
    for _, keys in objects_beside(place, ("manifest.json", "config.json"), "which GELU {} has", way_out):
        act = keys.get("hidden_act")
        if isinstance(act, str) and act in GELU_OF_ACT:
            return act
    return None
