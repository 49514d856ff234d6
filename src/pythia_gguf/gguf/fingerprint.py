"""What tells a model from another of its sizes, whatever both are quantized to: the bytes of its vectors.

Norms and biases are never quantized, by this project or by llama.cpp, so all files of one model hold the same bytes of
them, and training changes nearly all of them. What changes matrices alone, as an adapter that is merged, is not seen
here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pythia_gguf.gguf.tensor_source import TensorSource


def vectors_of(source: TensorSource) -> dict[str, str]:
    """SHA-256 of each tensor of one axis, by name; raises StorageError, ModelFileError for a file that has changed."""
    vectors = [name for name, tensor in source.tensors.items() if len(tensor.shape) == 1]
    return {name: hashlib.sha256(source.rows(name).tobytes()).hexdigest() for name in vectors}


def fingerprint(vectors: Mapping[str, str]) -> str:
    """One hash of them all."""
    return hashlib.sha256(repr(sorted(vectors.items())).encode()).hexdigest()


def are_of_one_model(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether most vectors are the same: one that is damaged makes no other model."""
    return 2 * sum(b.get(name) == digest for name, digest in a.items()) >= max(len(a), len(b))
