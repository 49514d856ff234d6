"""Importance matrices: llama-imatrix's own files in both forms, and what is refused."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.gguf.container import Metadata
from pythia_gguf.gguf.imatrix import (
    Importance,
    ImportanceMatrix,
    MatrixRun,
    TextRead,
    imatrix_bytes,
    merged,
    read_imatrix,
)
from pythia_gguf.gguf.writer import header_bytes, layout

GOLDEN = Path(__file__).parent.parent / "golden"
OLD = (GOLDEN / "imatrix.dat").read_bytes()


def test_the_form_that_is_written_is_llama_imatrixs():
    matrix = read_imatrix(GOLDEN / "imatrix.gguf")
    assert imatrix_bytes(matrix) == (GOLDEN / "imatrix.gguf").read_bytes()
    assert (matrix.datasets, matrix.n_chunks, matrix.chunk_tokens) == (("heldout.txt",), 32, 256)


def test_both_forms_hold_the_same_means():
    new, old = read_imatrix(GOLDEN / "imatrix.gguf"), read_imatrix(GOLDEN / "imatrix.dat")
    assert list(new.entries) == list(old.entries) and len(new.entries) == 24
    for name, entry in new.entries.items():
        # The older form divides by the tokens and multiplies by the chunks: two roundings.
        np.testing.assert_allclose(old.entries[name].means, entry.means, rtol=3e-7)
    assert (old.datasets, old.n_chunks, old.chunk_tokens) == (("heldout.txt",), 32, 0)


def test_old_form_may_end_early(tmp_path: Path):
    """Files from before the number of chunks, and the text, were written."""
    tail = 4 + 4 + len("heldout.txt")
    for cut, n_chunks in ((tail, 0), (tail - 4, 32)):
        (tmp_path / "old.dat").write_bytes(OLD[:-cut])
        assert read_imatrix(tmp_path / "old.dat").n_chunks == n_chunks


def test_zero_counts_are_ones():
    assert Importance(sums=np.zeros(3, np.float32), count=0).means.tolist() == [1, 1, 1]


def old(entries: list[tuple[bytes, int, list[float]]], tail: bytes = b"", n: int | None = None) -> bytes:
    """The older form by hand."""
    data = struct.pack("<i", len(entries) if n is None else n)
    for name, n_chunks, values in entries:
        data += struct.pack("<i", len(name)) + name + struct.pack("<ii", n_chunks, len(values))
        data += np.array(values, "<f4").tobytes()
    return data + tail


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "number of entries needs 4 bytes, 0 left"),
        (b"not a matrix at all", "number of entries is 544501614"),
        (OLD[:-1], "name of the text needs 11 bytes, 10 left"),
        (OLD[:1050], "values of blk.0.attn_output.weight needs"),
        (old([]), "no entries"),
        (old([(b"a.weight", 1, [1.0])], n=-1), "number of entries is -1"),
        (old([(b"a.weight", 1, [1.0])], n=2), "length of name needs 4 bytes, 0 left"),
        (old([(b"a" * 64, 1, [1.0])]), "length of name is 64"),
        (old([(b"\xff.weight", 1, [1.0])]), "name is not UTF-8"),
        (old([(b"a.weight", -1, [1.0])]), "number of chunks is -1"),
        (old([(b"a.weight", 1, [float("nan")])]), "a.weight: has values that are not finite"),
        (
            old([(b"a.weight", 1, [1.0])], tail=struct.pack("<ii", 1, 99)),
            "name of the text needs|length of name of the",
        ),
    ],
)
def test_damaged_old_form_is_refused(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "bad.dat").write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        read_imatrix(tmp_path / "bad.dat")


KEYS: Metadata = {
    "general.type": "imatrix",
    "imatrix.datasets": ["a.txt"],
    "imatrix.chunk_count": np.uint32(1),
    "imatrix.chunk_size": np.uint32(512),
}
PAIR = {"a.weight.in_sum2": np.ones(4, np.float32), "a.weight.counts": np.array([512], np.float32)}


def gguf(keys: Metadata, arrays: dict[str, np.ndarray]) -> bytes:
    """A GGUF file by hand."""
    formats = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
    infos = layout((name, formats[a.dtype], a.shape) for name, a in arrays.items())
    return header_bytes(keys, infos) + b"".join(
        a.tobytes().ljust(-(-a.nbytes // 32) * 32, b"\0") for a in arrays.values()
    )


@pytest.mark.parametrize(
    ("keys", "arrays", "message"),
    [
        ({}, PAIR, "imatrix.datasets: expected strings"),
        (KEYS | {"general.type": "model"}, PAIR, "general.type: is a GGUF, but no importance matrix"),
        (KEYS | {"imatrix.chunk_size": "x"}, PAIR, "imatrix.chunk_size: expected a uint32, got 'x'"),
        (KEYS | {"imatrix.chunk_count": np.int32(1)}, PAIR, "imatrix.chunk_count: expected a uint32"),
        (KEYS, {}, "no entries"),
        (KEYS, {"a.weight.in_sum2": PAIR["a.weight.in_sum2"]}, "no tensor a.weight.counts"),
        (KEYS, {"a.weight.counts": PAIR["a.weight.counts"]}, "tensor a.weight.counts: is neither sums nor counts"),
        (KEYS, PAIR | {"b.weight": np.ones(4, np.float32)}, "tensor b.weight: is neither sums nor counts"),
        (KEYS, PAIR | {"a.weight.in_sum2": np.ones(4, np.float16)}, "sums and counts must be F32"),
        (KEYS, PAIR | {"a.weight.counts": np.ones(2, np.float32)}, "expected one count of tokens"),
        (KEYS, PAIR | {"a.weight.counts": np.array([-1], np.float32)}, "expected one count of tokens"),
        (KEYS, PAIR | {"a.weight.counts": np.array([np.nan], np.float32)}, "expected one count of tokens"),
        (KEYS, PAIR | {"a.weight.in_sum2": np.array([1, np.inf], np.float32)}, "a.weight: has values that are not"),
    ],
)
def test_gguf_that_is_no_matrix_is_refused(tmp_path: Path, keys: Metadata, arrays, message: str):
    (tmp_path / "good.gguf").write_bytes(gguf(KEYS, PAIR))
    assert read_imatrix(tmp_path / "good.gguf").entries["a.weight"].count == 512
    (tmp_path / "bad.gguf").write_bytes(gguf(keys, arrays))
    with pytest.raises(ModelFileError, match=message):
        read_imatrix(tmp_path / "bad.gguf")


RUN = MatrixRun(
    tool_version="0", file="m.gguf", sha256="ab", model="cd", activations="int8", gelu="erf", kv="f16", context=4,
    windows=2, texts=(TextRead(file="\u4e16 a.txt", sha256="ef"), TextRead(file="b", sha256="01")),
)  # fmt: skip


def test_runs_are_read_as_they_are_written(tmp_path: Path):
    both = merged([replace(matrix(1, 512), runs=(RUN,)), matrix(2, 512), replace(matrix(3, 512), runs=(RUN, RUN))])
    assert both.runs == (RUN,) * 3
    (tmp_path / "m.gguf").write_bytes(imatrix_bytes(both))
    assert read_imatrix(tmp_path / "m.gguf").runs == both.runs


@pytest.mark.parametrize(
    "listed",
    ["{}", [], ["{}"], [""], ["[]"], np.array([1], np.int32), ['{"texts": [{}]}'], [json.dumps({"file": 1})], True],
)
def test_runs_that_are_none_are_refused(tmp_path: Path, listed: object):
    (tmp_path / "m.gguf").write_bytes(gguf(KEYS | {"pythia_gguf.imatrix.runs": listed}, PAIR))
    if isinstance(listed, list) and not listed:
        assert read_imatrix(tmp_path / "m.gguf").runs == ()
        return
    with pytest.raises(ModelFileError, match=r"pythia_gguf\.imatrix\.runs: "):
        read_imatrix(tmp_path / "m.gguf")


def matrix(value: float, count: int, chunk_tokens: int = 512, name: str = "a", n: int = 2) -> ImportanceMatrix:
    entries = {name: Importance(sums=np.full(n, value, np.float32), count=count)}
    return ImportanceMatrix(
        entries=entries, datasets=(f"{value}.txt",), n_chunks=count // 512, chunk_tokens=chunk_tokens
    )


def test_merging_adds_sums_and_counts():
    both = merged([matrix(1, 512), matrix(2, 1024), matrix(5, 512, name="b")])
    assert {n: (e.sums.tolist(), e.count) for n, e in both.entries.items()} == {"a": ([3, 3], 1536), "b": ([5, 5], 512)}
    assert (both.datasets, both.n_chunks) == (("1.txt", "2.txt", "5.txt"), 3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (matrix(1, 512, n=3), "a has 2 columns in one file and 3 in another"),
        (matrix(1, 512, chunk_tokens=256), "of different length cannot be added up: 256 tokens, 512 tokens"),
        (matrix(1, 512, chunk_tokens=0), "not known, 512 tokens"),
    ],
)
def test_matrices_that_do_not_fit_are_not_merged(other: ImportanceMatrix, message: str):
    with pytest.raises(UsageError, match=message):
        merged([matrix(1, 512), other])
