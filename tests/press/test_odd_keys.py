"""Odd keys that we take are kept as llama.cpp's own quantizer keeps them: the file is the same, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import oracle
from press import tiny, toy_gguf
from press.hostile_gguf import ACCEPTED
from pythia_gguf.engine.model import load
from pythia_gguf.errors import ModelFileError
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.press.quantize import quantize


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_file_with_odd_keys_is_llama_cpps(name: str, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(tiny.gguf_bytes(width=32, keys=ACCEPTED[name]))
    (ours,) = quantize(source, tmp_path / "out", quants="Q8_0", threads=1).files
    oracle.quantize(source, tmp_path / "theirs.gguf", QUANTS["Q8_0"].file_type)
    assert ours.path.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_a_source_that_is_aligned_to_64_is_the_one_exception(tmp_path: Path) -> None:
    """llama.cpp keeps the key and lays its file out for 32, so that it is no valid file; ours is as the key says."""
    quants = {}
    sizes = {"hidden": 96, "n_layers": 2, "n_heads": 3, "n_ffn": 160}
    for alignment in (32, 64):
        metadata = toy_gguf.model_metadata(**sizes) | {"general.alignment": np.uint32(alignment)}
        source = toy_gguf.write_gguf(tmp_path / f"{alignment}.gguf", metadata, hard=False)
        (ours,) = quantize(source, tmp_path / f"out{alignment}", quants="Q4_0", threads=1).files
        theirs = tmp_path / f"theirs{alignment}.gguf"
        oracle.quantize(source, theirs, QUANTS["Q4_0"].file_type)
        quants[alignment] = open_gguf(ours.path)
        assert (ours.path.read_bytes() == theirs.read_bytes()) == (alignment == 32)
    with pytest.raises(ModelFileError):
        open_gguf(tmp_path / "theirs64.gguf")
    assert all(tensor.offset % 64 == 0 for tensor in quants[64].tensors.values())
    for name in quants[32].tensors:
        assert np.array_equal(decode_tensor(quants[32], name), decode_tensor(quants[64], name))
    assert np.array_equal(*(load(gguf.path, threads=1).logits([1, 2, 3]) for gguf in quants.values()))
