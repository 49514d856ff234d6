"""A GGUF as a transformers model in memory.

Knows no file format; torch and transformers are the caller's, and imported only when called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

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
    """A GPTNeoXForCausalLM with a GGUF's weights, quantized or not; transformers itself loads no GPT-NeoX GGUF.

    dtype, hidden_act  as in `export.folder.export`
    Raises             UsageError without torch and transformers; ModelFileError, StorageError
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(Argument("dtype"), f": no dtype {dtype!r}: one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    try:
        import torch
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    except ImportError as e:
        raise UsageError(f"to_transformers needs torch and transformers: {e}") from e
    check_act(hidden_act)
    gguf, config = open_gguf_model(model)
    dtype = dtype or dtype_of(gguf)
    keys = hf_config(gguf, config, dtype, hidden_act)
    made = GPTNeoXForCausalLM(GPTNeoXConfig(**keys)).to(getattr(torch, dtype))
    state = made.state_dict()
    # transformers 5 calls the last matrix lm_head.
    last = "lm_head.weight" if "lm_head.weight" in state else "embed_out.weight"
    with torch.no_grad():
        for name, values in hf_tensors(gguf, config):
            state[last if name == "embed_out.weight" else name].copy_(torch.from_numpy(values))
    return made.train(False)
