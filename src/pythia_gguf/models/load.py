"""`pythia_gguf.load`: any model by file, folder or name."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from pythia_gguf.arguments import checked, place
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.gguf.tensor_source import TensorSource
from pythia_gguf.models.find import found_gguf
from pythia_gguf.progress import Progress

if TYPE_CHECKING:
    from pythia_gguf.engine.model import Model


@checked
def load(
    model: str | os.PathLike[str] | TensorSource,
    *,
    revision: str | None = None,
    quant: str | None = None,
    threads: int | None = None,
    gelu: str = "auto",
    activations: str = "int8",
    cache: str = "auto",
    progress: Progress | None = None,
) -> Model:
    """Load a model to run it: `load("EleutherAI/pythia-70m-deduped", revision="step3000", quant="Q4_K_M")`.

    model, revision, quant  as in `models.find.find_gguf`; or a model in memory, such as `encode_model` makes
    threads      default one per CPU; no result depends on it
    gelu         "erf", "tanh", or "auto": what the manifest or config.json beside the file says, else erf
    activations  "int8" (32 values share a scale; fast), "float32" (no error but the weights' own) or "bf16x3" (nearly
                 as exact, in three products of bfloat16 numbers; needs a processor with AMX)
    cache        keys and values: "f16", "f32", or "auto": f32 for F32 files
    progress     hears what is going on
    Raises       ModelFileError, StorageError, UsageError, NetworkError
    """
    from pythia_gguf.engine import model as engine

    run = partial(engine.load, threads=threads, gelu=gelu, activations=activations, cache=cache, progress=progress)
    if not isinstance(model, TensorSource):
        with found_gguf(
            place("model", model), revision=revision, quant=quant, threads=threads, progress=progress
        ) as path:
            return run(path)
    for name, value in (("revision", revision), ("quant", quant)):
        if value is not None:
            raise UsageError(Argument(name), " changes nothing for a model in memory")
    return run(model)
