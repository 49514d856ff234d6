"""Small GPT-NeoX models as unquantized GGUF files, with weights that encoders find hard."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gguf.toy import metadata as toy_metadata
from pythia_gguf.arch import config_from_gguf
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import Metadata, alignment_of, padded
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.writer import file_bytes, header_bytes, layout


def model_metadata(*, hidden: int, n_layers: int, n_heads: int, n_ffn: int) -> Metadata:
    """Keys of a toy of these sizes; 300 tokens."""
    return toy_metadata() | {
        "gptneox.embedding_length": np.uint32(hidden),
        "gptneox.block_count": np.uint32(n_layers),
        "gptneox.feed_forward_length": np.uint32(n_ffn),
        "gptneox.rope.dimension_count": np.uint32(hidden // n_heads // 4),
        "gptneox.attention.head_count": np.uint32(n_heads),
    }


def shapes_of(metadata: Metadata) -> dict[str, tuple[int, ...]]:
    """Tensors of a model with such keys."""
    return GPT_NEOX.tensor_shapes(config_from_gguf(metadata, path="toy"))


def hard_rows(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Weights whose rows go through all the kinds that make encoders differ; float32, all exact in float16."""
    n_rows, n = shape
    w = 0.02 * rng.standard_normal(shape)
    i = np.arange(n)
    kinds = [
        lambda v: v,
        lambda v: 0 * v,
        lambda v: -0.0 * np.abs(v),
        lambda v: 0 * v + 0.5,
        lambda v: 0 * v - 0.5,
        lambda v: v * 1e-6,  # subnormal in float16
        lambda v: np.clip(v * 4e6, -65504, 65504),
        lambda v: np.abs(v),
        lambda v: -np.abs(v),
        lambda v: np.where(i == 7, 1.0, 0.0),
        lambda v: np.where(i % 256 == 3, -65504.0, v * 1e-3),
        lambda v: v * np.exp(3 * rng.standard_normal(n)),
        lambda v: np.sign(v) * 0.1,
        lambda v: -60000 + v * 1000,
        lambda v: np.where(rng.random(n) < 0.9, 0, v),
        lambda v: -1 + v * 1e-2,
        lambda v: np.where(i // 32 % 3 == 0, -60000.0 + v, v * 1e-4),
        lambda v: 0 * v + 6e-8,
    ]
    for r in range(n_rows):
        w[r] = kinds[r % len(kinds)](w[r])
    return w.astype(np.float16).astype(np.float32)


def write_gguf(path: Path, metadata: Metadata, *, stored: str = "F16", seed: int = 0, hard: bool = True) -> Path:
    """A whole file: vectors in F32, matrices in `stored`."""
    rng = np.random.default_rng(seed)
    alignment = alignment_of(metadata)
    infos = layout(((n, stored if len(s) == 2 else "F32", s) for n, s in shapes_of(metadata).items()), alignment)
    with open(path, "wb") as out:
        out.write(header_bytes(metadata, infos))
        for info in infos:
            if len(info.shape) == 1:
                w = rng.standard_normal(info.shape).astype(np.float32)
            else:
                w = hard_rows(rng, info.shape) if hard else (0.02 * rng.standard_normal(info.shape)).astype(np.float32)
            if info.format == "F32" and len(info.shape) == 2:
                w = w * np.float32(0.9987)  # values that float16 does not have
            out.write(as_stored(w, info.format).ljust(padded(info.n_bytes, alignment), b"\0"))
    return path


def widened(source: Path, path: Path) -> Path:
    """The same model with every matrix in F32, which holds the values of F16 and BF16 exactly."""
    gguf = open_gguf(source)
    infos = layout((name, "F32", tensor.shape) for name, tensor in gguf.tensors.items())
    with open(path, "wb") as out:
        out.write(header_bytes(gguf.metadata | {"general.file_type": np.uint32(0)}, infos))
        for info in infos:
            out.write(decode_tensor(gguf, info.name).tobytes().ljust(padded(info.n_bytes, 32), b"\0"))
    return path


def write_sparse(path: Path, metadata: Metadata) -> Path:
    """A file with a true header and a hole for its data: for what reads shapes and sizes only."""
    infos = layout((n, "F16" if len(s) == 2 else "F32", s) for n, s in shapes_of(metadata).items())
    path.write_bytes(header_bytes(metadata, infos))
    os.truncate(path, file_bytes(metadata, infos))
    return path


def as_stored(w: np.ndarray, stored: str) -> bytes:
    """float32 weights as a file holds them; bfloat16 by cutting, which is as good a value as any."""
    if stored == "BF16":
        return (w.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return w.astype(FORMATS[stored].block["w"]).tobytes()
