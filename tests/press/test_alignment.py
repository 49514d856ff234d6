"""A source of another alignment gives files of that alignment, laid out as they say.

Not llama.cpp's bytes: 0c1e57098 keeps the key and lays tensors out for 32, and cannot read its own file then.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import oracle
from press.toy_gguf import model_metadata, write_gguf
from pythia_gguf import load, open_gguf, quantize, verify
from pythia_gguf.gguf.container import padded
from pythia_gguf.gguf.writer import header_bytes, layout
from pythia_gguf.plan.quants import QUANTS


def realigned(source: Path, path: Path, alignment: int) -> Path:
    """The same tensors under the key of another alignment."""
    gguf, data = open_gguf(source), source.read_bytes()
    infos = layout(((t.name, t.format, t.shape) for t in gguf.tensors.values()), alignment)
    bodies = (data[gguf.data_offset + t.offset :][: t.n_bytes] for t in gguf.tensors.values())
    body = b"".join(b.ljust(padded(len(b), alignment), b"\0") for b in bodies)
    path.write_bytes(header_bytes(gguf.metadata | {"general.alignment": np.uint32(alignment)}, infos) + body)
    return path


def tensors(path: Path) -> dict[str, bytes]:
    gguf, data = open_gguf(path), path.read_bytes()
    return {t.name: data[gguf.data_offset + t.offset :][: t.n_bytes] for t in gguf.tensors.values()}


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_files_keep_the_alignment_of_their_source(alignment: int, tmp_path: Path):
    keys = model_metadata(hidden=96, n_layers=1, n_heads=3, n_ffn=96)
    source = write_gguf(tmp_path / "toy.F16.gguf", keys, hard=False)
    other = realigned(source, tmp_path / "other.F16.gguf", alignment)
    (usual,) = quantize(source, tmp_path / "usual", quants="Q8_0").files
    (ours,) = quantize(other, tmp_path / "ours", quants="Q8_0").files
    assert open_gguf(ours.path).alignment == alignment
    assert tensors(ours.path) == tensors(usual.path)
    assert [v.state for v in verify(tmp_path / "ours")] == ["ok"]
    assert np.array_equal(load(ours.path).logits([1, 2, 3]), load(usual.path).logits([1, 2, 3]))


def test_llama_cpp_still_lays_out_for_32(tmp_path: Path):
    """When this fails, its bytes have become ours, and the exception above is over."""
    keys = model_metadata(hidden=96, n_layers=1, n_heads=3, n_ffn=96)
    other = realigned(write_gguf(tmp_path / "toy.F16.gguf", keys, hard=False), tmp_path / "other.F16.gguf", 64)
    (ours,) = quantize(other, tmp_path / "ours", quants="Q8_0").files
    oracle.quantize(other, tmp_path / "theirs.gguf", QUANTS["Q8_0"].file_type)
    theirs = (tmp_path / "theirs.gguf").read_bytes()
    assert theirs != ours.path.read_bytes()
    assert theirs[:4] == b"GGUF" and b"general.alignment" in theirs
