"""Tells models of the same sizes apart, whatever they are quantized to, by the bytes of their vectors.

Neither this project nor llama.cpp quantizes norms and biases, so all files of one model hold the same bytes of them,
and training changes nearly all of them. A change of matrices alone, such as a merged adapter, goes unnoticed here.
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
    """Whether most vectors are the same: a single damaged one does not make another model."""
    return 2 * sum(b.get(name) == digest for name, digest in a.items()) >= max(len(a), len(b))
