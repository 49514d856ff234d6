"""Whole files, header included, are what llama.cpp's llama_model_quantize writes from the same GGUF."""

from __future__ import annotations

from pathlib import Path

import pytest

import oracle
from press.toy_gguf import model_metadata, write_gguf
from pythia_gguf import quantize
from pythia_gguf.plan.quants import QUANTS

DISTINCT = [q for q in QUANTS.values() if q.alias_of is None]
SOURCES = {
    # hidden 256: every K-format fits; hard rows of every kind
    "F16": ({"hidden": 256, "n_layers": 3, "n_heads": 4, "n_ffn": 512}, "F16"),
    "BF16": ({"hidden": 256, "n_layers": 1, "n_heads": 4, "n_ffn": 256}, "BF16"),
    "F32": ({"hidden": 256, "n_layers": 1, "n_heads": 4, "n_ffn": 256}, "F32"),
    # the shape of pythia-14m: rows of 128 fall back, rows of 512 do not
    "fallback": ({"hidden": 128, "n_layers": 2, "n_heads": 4, "n_ffn": 512}, "F16"),
    # rows of 48: not even 32 divides them
    "F16 fallback": ({"hidden": 48, "n_layers": 1, "n_heads": 2, "n_ffn": 96}, "F32"),
}


@pytest.fixture(scope="module", params=list(SOURCES))
def pressed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source and the folder we made of it."""
    sizes, stored = SOURCES[request.param]
    folder = tmp_path_factory.mktemp("parity")
    source = write_gguf(folder / "toy.gguf", model_metadata(**sizes), stored=stored, seed=len(request.param))
    quantize(source, folder / "out", threads=2)
    return source, folder / "out"


@pytest.mark.parametrize("quant", DISTINCT, ids=lambda q: q.name)
def test_file_is_llama_cpps(pressed: tuple[Path, Path], quant, tmp_path: Path):
    source, folder = pressed
    theirs = tmp_path / "theirs.gguf"
    oracle.quantize(source, theirs, quant.file_type)
    assert (folder / f"toy.{quant.name}.gguf").read_bytes() == theirs.read_bytes()


def test_aliases_are_the_same_file(pressed: tuple[Path, Path]):
    _, folder = pressed
    for quant in QUANTS.values():
        if quant.alias_of:
            alias, original = folder / f"toy.{quant.name}.gguf", folder / f"toy.{quant.alias_of}.gguf"
            assert alias.samefile(original)


def test_sample_checkpoint_is_llama_cpps(tmp_path: Path):
    """The real weights of the sample, by way of the unquantized file we keep."""
    quantize("examples/nano", tmp_path / "out", keep_f16=True, quants="Q4_K_M,IQ4_XS,Q3_K_L,Q8_0")
    for name in ("Q4_K_M", "IQ4_XS", "Q3_K_L", "Q8_0"):
        oracle.quantize(tmp_path / "out" / "nano.F16.gguf", tmp_path / "theirs.gguf", QUANTS[name].file_type)
        ours = (tmp_path / "out" / f"nano.{name}.gguf").read_bytes()
        assert ours == (tmp_path / "theirs.gguf").read_bytes()
