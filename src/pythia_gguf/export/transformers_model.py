"""A GGUF as a transformers model in memory.

The caller has torch and transformers; they are imported only when a function here is called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pythia_gguf.arch import ARCHITECTURES
from pythia_gguf.arguments import checked
from pythia_gguf.errors import Argument, UsageError, nearest
from pythia_gguf.export.folder import DTYPES, check_act, dtype_of, hf_config, hf_tensors
from pythia_gguf.intake.gguf_model import open_gguf_model

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM


@checked
def to_transformers(
    model: str | os.PathLike[str], *, dtype: str | None = None, hidden_act: str | None = None
) -> GPTNeoXForCausalLM:
    """A GPTNeoXForCausalLM with a GGUF's weights, quantized or not; transformers itself loads no such GGUF.

    dtype, hidden_act  as in `export.folder.export`
    Raises             UsageError without torch and transformers; ModelFileError, StorageError
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(Argument("dtype"), f": no dtype {dtype!r}: one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    try:
        import torch
        import transformers
    except ImportError as e:
        raise UsageError(f"to_transformers needs torch and transformers: {e}") from e
    check_act(hidden_act)
    gguf, config = open_gguf_model(model)
    dtype = dtype or dtype_of(gguf, config)
    keys = hf_config(gguf, config, dtype, hidden_act)
    architecture = ARCHITECTURES[config.architecture]
    kind = getattr(transformers, architecture.hf_class)
    made = kind(kind.config_class(**keys)).to(getattr(torch, dtype))
    # Versions of transformers differ in what they call a module in memory; a GGUF has one name for each.
    state = {architecture.gguf_name(name, path=gguf.path): tensor for name, tensor in made.state_dict().items()}
    with torch.no_grad():
        for name, values in hf_tensors(gguf, config):
            state[architecture.gguf_name(name, path=gguf.path)].copy_(torch.from_numpy(values))
    return made.train(False)
