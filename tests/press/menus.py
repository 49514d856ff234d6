"""A toy whose quants differ in both mixes, and folders of all its quants, made once for all tests of a run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from press.toy_gguf import model_metadata, shapes_of, write_gguf
from pythia_gguf import PressResult, quantize
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes

# 8 layers: rules that count in eighths pick one.
SIZES = {"hidden": 256, "n_layers": 8, "n_heads": 4, "n_ffn": 256}
# (mix, whether with the importance matrix)
MENUS = (("2026", False), ("2024", False), ("2026", True))
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@cache
def toy_source() -> Path:
    """An F16 GGUF; imatrix.gguf, beside it, is its importance matrix."""
    _KEPT.append(tempfile.TemporaryDirectory())
    folder, rng = Path(_KEPT[0].name), np.random.default_rng(5)
    entries = {
        name: Importance(sums=(rng.standard_normal(shape[1]) ** 2).astype(np.float32), count=64)
        for name, shape in shapes_of(model_metadata(**SIZES)).items()
        if len(shape) == 2
    }
    matrix = ImportanceMatrix(entries=entries, datasets=("text",), n_chunks=1, chunk_tokens=64)
    (folder / "imatrix.gguf").write_bytes(imatrix_bytes(matrix))
    return write_gguf(folder / "toy.gguf", model_metadata(**SIZES), seed=3, hard=False)


def matrix_of(is_weighted: bool) -> Path | None:
    """Its importance matrix, or none."""
    return toy_source().parent / "imatrix.gguf" if is_weighted else None


@cache
def menu_of(mix: str, is_weighted: bool) -> PressResult:
    """All 19 files of a mix and the unquantized one; nobody may change them."""
    out = toy_source().parent / f"{mix}{'-imatrix' if is_weighted else ''}"
    return quantize(toy_source(), out, mix=mix, imatrix=matrix_of(is_weighted), keep_f16=True)
