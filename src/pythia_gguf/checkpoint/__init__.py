"""A folder of files -> lazy tensors: safetensors, torch.save zips, shards."""

from pythia_gguf.checkpoint.checkpoint import Checkpoint, iter_file_checked, open_checkpoint
from pythia_gguf.checkpoint.tensor import LazyTensor

__all__ = ["Checkpoint", "LazyTensor", "iter_file_checked", "open_checkpoint"]
