"""`verify` finds one flipped bit anywhere in any file, and says where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from press import tiny
from pythia_gguf import open_gguf, quantize, verify

QUANTS = "Q4_0,Q5_1,Q8_0,Q4_K_M"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("verify")
    (home / "m.F16.gguf").write_bytes(tiny.gguf_bytes(width=32))
    quantize(home / "m.F16.gguf", home / "out", quants=QUANTS, keep_f16=True)
    return home / "out"


def tensor_at(path: Path, at: int) -> str | None:
    """The tensor that a byte belongs to; None in the header and between tensors."""
    gguf = open_gguf(path)
    places = {
        t.name: range(gguf.data_offset + t.offset, gguf.data_offset + t.offset + t.n_bytes)
        for t in gguf.tensors.values()
    }
    return next((name for name, place in places.items() if at in place), None)


@pytest.mark.parametrize("name", ["m.Q4_0.gguf", "m.Q5_1.gguf", "m.Q8_0.gguf", "m.Q4_K_M.gguf", "m.F16.gguf"])
def test_every_flipped_bit_is_found_and_named(folder: Path, name: str):
    """Sixty bits of each file, twenty of them in the header; and the last byte, which is padding or a tensor's."""
    path = folder / name
    data = path.read_bytes()
    rng = np.random.default_rng(len(data))
    start = open_gguf(path).data_offset
    places = [*rng.integers(0, start, 20), *rng.integers(start, len(data), 39), len(data) - 1]
    for at in map(int, places):
        tensor = tensor_at(path, at)
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        faults = {v.file: v.fault for v in verify(folder)}
        path.write_bytes(data)
        fault = faults.pop(name)
        assert fault is not None, at
        assert set(faults.values()) == {None}
        if tensor is not None:
            assert fault.endswith(f"tensor {tensor}: bytes differ from the manifest")
        elif at >= start:
            assert "header or padding differs" in fault or "padding" in fault


def test_flipped_padding_is_found(folder: Path):
    """A vector of 32 halves... none here has padding: so the zeros between header and data."""
    path = folder / "m.Q4_0.gguf"
    data = bytearray(path.read_bytes())
    start = open_gguf(path).data_offset
    assert data[start - 1] == 0
    data[start - 1] = 4
    original = path.read_bytes()
    path.write_bytes(data)
    (verdict,) = verify(path)
    path.write_bytes(original)
    assert "padding" in str(verdict.fault)
