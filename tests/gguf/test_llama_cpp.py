"""llama.cpp and we agree on every byte of a header, in both directions, and on what the weights are."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from gguf import toy
from gguf.craft import draft, keys, tensors
from gguf.llama_view import rewrite_header, view
from gguf.toy import TINY
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import Metadata
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.writer import file_bytes, header_bytes, layout

# llama_ftype numbers (llama.cpp 0c1e57098 include/llama.h) that between them use every format we have.
FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_M": 12,
    "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32,
}  # fmt: skip

EVERY_TYPE: Metadata = TINY | {
    "a.u8": np.uint8(200), "a.i8": np.int8(-100), "a.u16": np.uint16(60000), "a.i16": np.int16(-30000),
    "a.u32": np.uint32(2**32 - 1), "a.i32": np.int32(-(2**31)), "a.u64": np.uint64(2**64 - 1),
    "a.i64": np.int64(-(2**63)), "a.f32": np.float32(0.1), "a.f64": np.float64(0.1), "a.text": "caf\u00e9 \u4e16",
    "a.empty": "", "b.u8": np.arange(3, dtype=np.uint8), "b.i16": np.arange(-3, 3, dtype=np.int16),
    "b.f32": np.array([np.nan, np.inf, -0.0], np.float32), "b.u64": np.array([2**64 - 1], np.uint64),
    "b.f64": np.array([], np.float64), "b.words": ["", "\u4e16", "x" * 300], "b.none": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write(tmp_path_factory.mktemp("toy") / "toy.gguf", toy.metadata(), toy.weights())


@pytest.fixture(scope="module")
def quantized(toy_file: Path) -> dict[str, Path]:
    """The toy in every file type, made by llama.cpp."""
    return {
        name: toy.quantize(toy_file, toy_file.with_name(f"{name}.gguf"), number) for name, number in FILE_TYPES.items()
    }


def test_every_format_occurs(quantized: dict[str, Path]) -> None:
    seen = {info.format for path in quantized.values() for info in open_gguf(path).tensors.values()}
    assert seen == set(FORMATS)


@pytest.mark.parametrize("name", FILE_TYPES)
def test_header_of_llama_cpps_file_is_written_again_byte_for_byte(quantized: dict[str, Path], name: str) -> None:
    gguf = open_gguf(quantized[name])
    infos = tuple(gguf.tensors.values())
    header = header_bytes(gguf.metadata, infos)
    assert len(header) == gguf.data_offset
    assert header == quantized[name].read_bytes()[: len(header)]
    assert file_bytes(gguf.metadata, infos) == gguf.n_bytes == quantized[name].stat().st_size
    assert layout((t.name, t.format, t.shape) for t in infos) == infos


@pytest.mark.parametrize("name", FILE_TYPES)
def test_weights_are_those_that_llama_cpp_decodes(quantized: dict[str, Path], tmp_path: Path, name: str) -> None:
    """llama.cpp turns its own file back into float32; our decode gives the same bits."""
    gguf = open_gguf(quantized[name])
    plain = open_gguf(toy.quantize(quantized[name], tmp_path / "f32.gguf", FILE_TYPES["F32"]))
    for tensor in gguf.tensors:
        ours, theirs = decode_tensor(gguf, tensor), decode_tensor(plain, tensor)
        assert plain.tensors[tensor].format == "F32"
        assert ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def test_weights_of_our_file_are_the_ones_we_wrote(toy_file: Path) -> None:
    gguf = open_gguf(toy_file)
    assert gguf.metadata["general.name"] == toy.metadata()["general.name"]
    for name, weights in toy.weights().items():
        assert gguf.rows(name).tobytes() == weights.tobytes()
        assert np.array_equal(decode_tensor(gguf, name), weights.astype(np.float32))


def test_llama_cpp_loads_and_runs_our_file(toy_file: Path) -> None:
    toy.silence()
    model = llama_cpp.Llama(str(toy_file), n_ctx=32, n_threads=1, verbose=False, logits_all=True)
    try:
        assert model.n_vocab() == toy.N_TOKENS
        assert model.metadata["general.name"] == toy.metadata()["general.name"]
        model.eval([1, 2, 3])
        assert np.isfinite(model.scores[:3]).all() and np.ptp(model.scores[:3]) > 0
    finally:
        model.close()


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_llama_cpps_writer_makes_our_header(tmp_path: Path, alignment: int | None) -> None:
    metadata = EVERY_TYPE | ({} if alignment is None else {"general.alignment": np.uint32(alignment)})
    specs = [("norm", "F32", (8,)), ("blocks", "Q4_0", (3, 32)), ("last", "F16", (2, 3, 4, 5))]
    infos = layout(specs, alignment or 32)
    header = header_bytes(metadata, infos)
    path = tmp_path / "ours.gguf"
    path.write_bytes(header.ljust(file_bytes(metadata, infos), b"\0"))
    assert rewrite_header(path, tmp_path / "theirs.gguf") == header
    seen = view(path)
    assert seen is not None and (seen.version, seen.alignment) == (3, alignment or 32)
    assert seen.data_offset == len(header) == open_gguf(path).data_offset
    assert seen.tensors == [
        ("norm", 0, (8, 1, 1, 1), infos[0].offset, 32),
        ("blocks", 2, (32, 3, 1, 1), infos[1].offset, 54),
        ("last", 1, (5, 4, 3, 2), infos[2].offset, 240),
    ]


def test_files_put_together_by_hand_are_legal_to_llama_cpp(tmp_path: Path) -> None:
    """The seed of the malformed corpus is a file that llama.cpp takes: each case breaks just its one rule."""
    path = tmp_path / "valid.gguf"
    path.write_bytes(draft(keys(), tensors()).data)
    assert view(path) is not None
