"""Odd keys that we take are kept as llama.cpp's own quantizer keeps them: the file is the same, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

import oracle
from press import tiny
from press.hostile_gguf import ACCEPTED
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.press.quantize import quantize


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_file_with_odd_keys_is_llama_cpps(name: str, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(tiny.gguf_bytes(width=32, keys=ACCEPTED[name]))
    (ours,) = quantize(source, tmp_path / "out", quants="Q8_0", threads=1).files
    oracle.quantize(source, tmp_path / "theirs.gguf", QUANTS["Q8_0"].file_type)
    assert ours.path.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
