"""Pythia / GPT-NeoX checkpoints to GGUF, bit-identical to llama.cpp's quantizer, and a CPU engine that runs them.

Public names are loaded when they are first used, so `import pythia_gguf` loads neither numba nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythia_gguf.engine.generation import Completion
    from pythia_gguf.engine.model import Model
    from pythia_gguf.errors import PythiaGGUFError
    from pythia_gguf.export.transformers_model import to_transformers
    from pythia_gguf.gguf.reader import decode_tensor, open_gguf
    from pythia_gguf.models.load import load
    from pythia_gguf.press.against import verify_against
    from pythia_gguf.press.encoded import encode_model
    from pythia_gguf.press.quantize import PressResult, quantize
    from pythia_gguf.press.verify import verify

_HOME_OF = {
    "Completion": "pythia_gguf.engine.generation",
    "Model": "pythia_gguf.engine.model",
    "PressResult": "pythia_gguf.press.quantize",
    "PythiaGGUFError": "pythia_gguf.errors",
    "to_transformers": "pythia_gguf.export.transformers_model",
    "decode_tensor": "pythia_gguf.gguf.reader",
    "encode_model": "pythia_gguf.press.encoded",
    "load": "pythia_gguf.models.load",
    "open_gguf": "pythia_gguf.gguf.reader",
    "quantize": "pythia_gguf.press.quantize",
    "verify": "pythia_gguf.press.verify",
    "verify_against": "pythia_gguf.press.against",
}

__all__ = [
    "Completion",
    "Model",
    "PressResult",
    "PythiaGGUFError",
    "decode_tensor",
    "encode_model",
    "load",
    "open_gguf",
    "quantize",
    "to_transformers",
    "verify",
    "verify_against",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
