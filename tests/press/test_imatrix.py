"""Files made with an importance matrix are llama.cpp's: the program's for the sample, the library's for odd ones."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import oracle
from engine.nano import ROOT
from press.toy_gguf import model_metadata, shapes_of, write_gguf
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.gguf.fingerprint import fingerprint, vectors_of
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, MatrixRun, imatrix_bytes, read_imatrix
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.plan.quants import QUANTS

GOLDEN = ROOT / "tests" / "golden"
HASHES = json.loads((GOLDEN / "tools.json").read_text())["quantize_imatrix"]
DISTINCT = [q for q in QUANTS.values() if q.alias_of is None]
# 8 layers: rules that count in eighths pick one.
SIZES = {"hidden": 256, "n_layers": 8, "n_heads": 4, "n_ffn": 256}
TEXTS = ("wiki.train.raw", "second.txt")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the sample, made where llama-quantize made its own: beside a matrix named imatrix.gguf."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(ROOT / "examples" / "nano", folder / "nano")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("imatrix.gguf", "imatrix.dat"):
            shutil.copy(GOLDEN / name, folder)
        result = quantize("nano", "out", imatrix="imatrix.gguf")
        old = quantize("nano", "old", quants="Q4_K_M", imatrix="imatrix.dat")
    files = {f.quant: folder / f.path for f in result.files}
    return files | {"Q4_K_M imatrix.dat": folder / old.files[0].path}


@pytest.mark.parametrize("name", HASHES)
def test_file_is_that_of_llama_quantize(sample: dict[str, Path], name: str):
    assert hashlib.sha256(sample[name].read_bytes()).hexdigest() == HASHES[name]


def test_the_frozen_hashes_are_of_weighted_files(sample: dict[str, Path]):
    without = json.loads((GOLDEN / "tools.json").read_text())["quantize"]
    assert len(HASHES) == 17 and not set(HASHES.values()) & set(without.values())


def odd_matrix() -> ImportanceMatrix:
    """For most matrices: ordinary, zeroed, sparse, without a token; and one entry for a tensor that is not there."""
    rng = np.random.default_rng(7)
    entries = {}
    shapes = {n: s for n, s in shapes_of(model_metadata(**SIZES)).items() if len(s) == 2}
    for i, (name, shape) in enumerate(shapes.items()):
        n = shape[1]
        sums = [
            rng.standard_normal(n) ** 2 * 999,
            np.where(rng.random(n) < 0.6, 0, rng.standard_normal(n) ** 2),
            np.where(rng.random(n) < 0.05, 10.0 ** rng.uniform(-3, 3, n), 0),
            np.zeros(n),
            10.0 ** rng.uniform(-12, 12, n),
        ][i % 5]
        if i % 7 != 3:
            entries[name] = Importance(sums=sums.astype(np.float32), count=0 if i % 6 == 4 else 1234)
    entries["blk.99.ffn_up.weight"] = Importance(sums=np.ones(8, np.float32), count=1)
    assert "output.weight" in entries and len(entries) < len(shapes) + 1
    return ImportanceMatrix(entries=entries, datasets=TEXTS, n_chunks=5, chunk_tokens=512)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ImportanceMatrix]:
    """A source, a folder made of it with the odd matrix, and that."""
    folder = tmp_path_factory.mktemp("odd")
    source = write_gguf(folder / "toy.gguf", model_metadata(**SIZES), seed=3, hard=False)
    matrix = odd_matrix()
    (folder / "odd.gguf").write_bytes(imatrix_bytes(matrix))
    quantize(source, folder / "out", imatrix=folder / "odd.gguf")
    return source, folder / "out", matrix


@pytest.mark.parametrize("quant", DISTINCT, ids=lambda q: q.name)
def test_file_with_an_odd_matrix_is_llama_cpps(odd: tuple[Path, Path, ImportanceMatrix], quant, tmp_path: Path):
    source, folder, matrix = odd
    # As llama-quantize hands them on (tools/quantize/quantize.cpp, load_imatrix).
    importances = {
        name: e.sums / np.float32(e.count) if e.count else np.ones_like(e.sums) for name, e in matrix.entries.items()
    }
    keys = {
        "quantize.imatrix.file": str(source.parent / "odd.gguf")[:127],
        "quantize.imatrix.dataset": TEXTS[0],
        "quantize.imatrix.entries_count": len(matrix.entries),
        "quantize.imatrix.chunks_count": matrix.n_chunks,
    }
    oracle.quantize(source, tmp_path / "theirs", quant.file_type, importances=importances, keys=keys)
    assert (folder / f"toy.{quant.name}.gguf").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_mixes_change_with_a_matrix(odd: tuple[Path, Path, ImportanceMatrix]):
    source, folder, _ = odd

    def first_down(name: str, imatrix: Path | None) -> str:
        plan = quantize(source, folder, quants=name, imatrix=imatrix, dry_run=True).files[0].plan
        return plan["blk.0.ffn_down.weight"][0]

    changed = {name: (first_down(name, None), first_down(name, source.parent / "odd.gguf")) for name in QUANTS}
    assert {name: pair for name, pair in changed.items() if pair[0] != pair[1]} == {
        "Q4_0": ("Q4_0", "Q4_1"),
        "Q5_0": ("Q5_0", "Q5_1"),
        "IQ4_NL": ("Q5_K", "IQ4_NL"),
        "IQ4_XS": ("Q5_K", "IQ4_XS"),
    }


def test_card_and_manifest_tell_of_it(odd: tuple[Path, Path, ImportanceMatrix]):
    source, folder, _ = odd
    assert (
        "with the importance matrix odd.gguf (computed on wiki.train.raw, second.txt, 5 pieces of 512 tokens)"
        in (folder / "README.md").read_text()
    )
    told = json.loads((folder / "manifest.json").read_text())["source"]["imatrix"]
    raw = (source.parent / "odd.gguf").read_bytes()
    assert told == {"file": "odd.gguf", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def test_files_of_another_matrix_do_not_stay(odd: tuple[Path, Path, ImportanceMatrix], tmp_path: Path):
    source, folder, matrix = odd
    with pytest.raises(UsageError, match="was made with an importance matrix"):
        quantize(source, folder, quants="Q8_0")
    other = tmp_path / "other.gguf"
    other.write_bytes(imatrix_bytes(replace(matrix, n_chunks=matrix.n_chunks + 1)))
    with pytest.raises(UsageError, match="was made with another importance matrix"):
        quantize(source, folder, quants="Q8_0", imatrix=other)
    quantize(source, tmp_path / "plain", quants="Q8_0")
    with pytest.raises(UsageError, match="was made without an importance matrix"):
        quantize(source, tmp_path / "plain", quants="Q8_0", imatrix=source.parent / "odd.gguf")


def test_a_matrix_that_says_it_is_of_another_model_is_said(tmp_path: Path):
    """Of the same sizes; any file of the same model is no other one, and a matrix that says nothing gets no note."""
    same = write_gguf(tmp_path / "toy.gguf", model_metadata(**SIZES), seed=3, hard=False)
    other = write_gguf(tmp_path / "other.gguf", model_metadata(**SIZES), seed=4, hard=False)
    q8 = quantize(same, tmp_path / "q8", quants="Q8_0").files[0].path
    run = {"tool_version": "0", "sha256": "0", "activations": "int8", "gelu": "erf", "kv": "f16", "texts": ()}
    for of, is_said in ((None, False), (same, False), (q8, False), (other, True)):
        runs = ()
        if of is not None:
            model = fingerprint(vectors_of(open_gguf(of)))
            runs = (MatrixRun(**run, file=of.name, model=model, context=512, windows=5),)
        (tmp_path / "m.gguf").write_bytes(imatrix_bytes(replace(odd_matrix(), runs=runs)))
        notes = quantize(same, tmp_path / "out", quants="Q8_0", imatrix=tmp_path / "m.gguf", force=True).notes
        assert any("was collected of another model, other.gguf" in note for note in notes) == is_said
        assert any("another model" in note for note in notes) == is_said


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"blk.0.ffn_up.weight": Importance(sums=np.ones(64, np.float32), count=1)}, UsageError,
         "is of another model: 64 values for the 256 columns of blk.0.ffn_up.weight"),
        ({"blk.0.ffn_up.weight": Importance(sums=np.full(256, np.inf, np.float32), count=1)}, ModelFileError,
         "blk.0.ffn_up.weight: has values that are not finite"),
        (None, UsageError, "no entry is for a weight of this model"),
    ],
)  # fmt: skip
def test_matrix_that_does_not_fit_is_refused(tmp_path: Path, change, error, message):
    source = write_gguf(tmp_path / "toy.gguf", model_metadata(**SIZES))
    matrix = odd_matrix()
    entries = {"somewhere.weight": Importance(sums=np.ones(1, np.float32), count=1)}
    entries = dict(matrix.entries) | change if change else entries
    (tmp_path / "bad.gguf").write_bytes(imatrix_bytes(replace(matrix, entries=entries)))
    with pytest.raises(error, match=message):
        quantize(source, tmp_path / "out", imatrix=tmp_path / "bad.gguf")
    assert not (tmp_path / "out").exists()


def test_scales_that_a_matrix_makes_too_large_are_refused(tmp_path: Path):
    """llama.cpp refuses them too, when it validates what it has made."""
    source = write_gguf(tmp_path / "toy.gguf", model_metadata(**SIZES), seed=3)
    rng = np.random.default_rng(1)
    wild = Importance(sums=(10.0 ** rng.uniform(-12, 12, 256)).astype(np.float32), count=1)
    matrix = replace(odd_matrix(), entries={"token_embd.weight": wild})
    (tmp_path / "wild.gguf").write_bytes(imatrix_bytes(matrix))
    with pytest.raises(
        ModelFileError, match="as the importance matrix has them scaled, in rows 0 to 299 are too large"
    ):
        quantize(source, tmp_path / "out", quants="Q4_1", imatrix=tmp_path / "wild.gguf")
    with pytest.raises(AssertionError, match="failed to quantize: quantized data validation failed"):
        oracle.quantize(source, tmp_path / "theirs", 3, importances={"token_embd.weight": wild.means})


def test_embeddings_of_another_length_are_not_looked_at(tmp_path: Path):
    """As in llama.cpp, which knows of files where they are."""
    source = write_gguf(tmp_path / "toy.gguf", model_metadata(**SIZES))
    matrix = odd_matrix()
    wrong = {"token_embd.weight": Importance(sums=np.ones(64, np.float32), count=1)}
    (tmp_path / "wrong.gguf").write_bytes(imatrix_bytes(replace(matrix, entries=dict(matrix.entries) | wrong)))
    quantize(source, tmp_path / "out", quants="Q4_K_S", imatrix=tmp_path / "wrong.gguf")
    assert read_imatrix(tmp_path / "wrong.gguf").entries["token_embd.weight"].sums.size == 64
