"""What a model is: its sizes, tensor names and shapes, and the row order of fused weights.

Knows no bytes and does no maths.
"""

from pythia_gguf.arch.gpt_neox import (
    ARCHITECTURE,
    GPTNeoXConfig,
    config_from_gguf,
    config_from_hf,
    metadata_of,
)
from pythia_gguf.arch.tensors import check_shapes, gguf_name, hf_name, layer_of, qkv_runs, role_of, tensor_shapes

__all__ = [
    "ARCHITECTURE",
    "GPTNeoXConfig",
    "check_shapes",
    "config_from_gguf",
    "config_from_hf",
    "gguf_name",
    "hf_name",
    "layer_of",
    "metadata_of",
    "qkv_runs",
    "role_of",
    "tensor_shapes",
]
