"""gguf-py's files are ours and ours are gguf-py's: the golden file was written and read by gguf-py 0.19.0 alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pythia_gguf.gguf.container import Metadata, Value
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.writer import file_bytes, header_bytes, layout

GOLDEN = Path(__file__).parent / "golden" / "gguf_py.gguf"
EXPECTED = json.loads(GOLDEN.with_suffix(".json").read_text())

# The same content in our terms, in the order of golden/make_gguf_py.py.
METADATA: Metadata = {
    "general.architecture": "gptneox", "general.alignment": np.uint32(64), "general.name": "caf\u00e9 \u4e16\u754c",
    "a.u8": np.uint8(200), "a.i8": np.int8(-100), "a.u16": np.uint16(60000), "a.i16": np.int16(-30000),
    "a.u32": np.uint32(2**32 - 1), "a.i32": np.int32(-(2**31)), "a.u64": np.uint64(2**64 - 1),
    "a.i64": np.int64(-(2**63)), "a.f32": np.float32(1e-5), "a.f64": np.float64(1e-5), "a.yes": True, "a.no": False,
    "b.words": ["one", "\u4e8c", "drei" * 20], "b.i32": np.array([1, -2, 3], np.int32),
    "b.f32": np.array([0.5, -1.5], np.float32), "b.bool": np.array([True, False]),
}  # fmt: skip
SPECS = (
    ("vector", "F32", (5,)), ("half", "F16", (3, 4)), ("blocks.q4_0", "Q4_0", (3, 64)),
    ("blocks.q5_1", "Q5_1", (3, 64)), ("blocks.q8_0", "Q8_0", (3, 64)), ("blocks.bf16", "BF16", (3, 64)),
)  # fmt: skip


def gguf_py_types(value: Value) -> list[str]:
    """A type in gguf-py's words."""
    if isinstance(value, list):
        return ["ARRAY", "STRING"]
    if isinstance(value, np.ndarray):
        return ["ARRAY", *gguf_py_types(value[0])]
    return [{"str": "STRING"}.get(type(value).__name__, type(value).__name__.rstrip("_").upper())]


def test_our_writer_makes_gguf_pys_file() -> None:
    infos = layout(SPECS, 64)
    raw = GOLDEN.read_bytes()
    header = header_bytes(METADATA, infos)
    assert header == raw[: len(header)]
    assert file_bytes(METADATA, infos) == len(raw)


def test_our_reader_finds_what_gguf_pys_reader_finds() -> None:
    gguf = open_gguf(GOLDEN)
    assert {name: {"types": gguf_py_types(v), "value": plain(v)} for name, v in gguf.metadata.items()} == EXPECTED[
        "keys"
    ]
    assert list(gguf.metadata) == list(EXPECTED["keys"])
    assert gguf.data_offset == EXPECTED["data_offset"]
    found = {t.name: (t.format, list(t.shape), gguf.data_offset + t.offset, t.n_bytes) for t in gguf.tensors.values()}
    assert found == {
        name: (t["format"], t["shape"], t["data_offset"], t["n_bytes"]) for name, t in EXPECTED["tensors"].items()
    }


def test_our_decode_gives_gguf_pys_weights() -> None:
    gguf = open_gguf(GOLDEN)
    for name, tensor in EXPECTED["tensors"].items():
        weights = np.array(tensor["weights"], np.float32).reshape(tensor["shape"])
        assert np.array_equal(decode_tensor(gguf, name), weights)
        assert gguf.rows(name).nbytes == tensor["n_bytes"]


def plain(value: Value) -> object:
    """A value as JSON has it."""
    return value if isinstance(value, str | bool | list) else value.tolist()
