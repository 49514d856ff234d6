"""Folders of GGUF files as they are found: the file of a quant by what files hold, never one of two without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from press import tiny
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes
from pythia_gguf.models.find import find_gguf


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a model, and of another of the same sizes, "other"."""
    folder = tmp_path_factory.mktemp("made")
    tiny.write(folder / "tiny", tiny.folder_files(width=32))
    files = quantize(folder / "tiny", folder / "out", quants="Q4_0,Q4_K,Q4_K_M,Q8_0", keep_f16=True).files
    other = quantize(folder / "tiny", folder / "other", quants="Q8_0", name="another-70m").files
    return {f.quant: f.path for f in files} | {"other": other[0].path}


def place(folder: Path, files: dict[str, Path]) -> Path:
    """A folder of copies, by their new names."""
    folder.mkdir()
    for name, path in files.items():
        shutil.copy(path, folder / name)
    return folder


def clutter(folder: Path, made: dict[str, Path]) -> None:
    """What lies beside models: an importance matrix, a part, an adapter, damaged files, what a copy left."""
    entry = Importance(sums=np.ones(32, np.float32), count=16)
    matrix = ImportanceMatrix(entries={"blk.0.attn_qkv.weight": entry}, datasets=(), n_chunks=1, chunk_tokens=16)
    (folder / "imatrix.gguf").write_bytes(imatrix_bytes(matrix))
    part = tiny.gguf_bytes(width=32, keys={"split.count": np.uint16(2), "split.no": np.uint16(0)})
    (folder / "x.Q8_0-00001-of-00002.gguf").write_bytes(part)
    (folder / "adapter-Q8_0.gguf").write_bytes(tiny.gguf_bytes(width=32, keys={"general.type": "adapter"}))
    (folder / "0.Q8_0.gguf").write_bytes(made["Q8_0"].read_bytes()[:-100])
    (folder / "1.Q4_0.gguf").write_bytes(b"")
    (folder / "2.Q4_K_M.gguf").mkdir()
    (folder / "._a.gguf").write_bytes(b"\0\5\x16\7")
    (folder / "README.md").write_text("# files\n")


@pytest.mark.parametrize(
    "names",
    [
        {"pythia-1.4b-Q4_K_M.gguf": "Q4_K_M", "pythia-1.4b-Q8_0.gguf": "Q8_0", "pythia-1.4b-F16.gguf": "F16"},
        {"a.gguf": "Q4_K_M", "B.GGUF": "Q8_0", "ggml-model.gguf": "F16"},
        # Names that say something else.
        {"x.Q8_0.gguf": "Q4_K_M", "x.F16.gguf": "Q8_0", "x.Q4_K_M.gguf": "F16"},
    ],
)
@pytest.mark.parametrize("is_cluttered", [False, True])
def test_a_quant_is_found_by_what_files_hold(tmp_path: Path, made: dict[str, Path], names, is_cluttered: bool):
    folder = place(tmp_path / "folder", {name: made[quant] for name, quant in names.items()})
    if is_cluttered:
        clutter(folder, made)
    by_quant = {quant: folder / name for name, quant in names.items()}
    for asked, quant in (("Q4_K_M", "Q4_K_M"), ("q4_k", "Q4_K_M"), ("Q8_0", "Q8_0"), ("f16", "F16")):
        assert find_gguf(f"{folder}:{asked}") == by_quant[quant]
        assert find_gguf(folder, quant=asked) == by_quant[quant]
    with pytest.raises(UsageError, match=r"no Q4_9 here. Did you mean Q4_K_M"):
        find_gguf(f"{folder}:Q4_9")
    with pytest.raises(UsageError, match="which of them. Say folder:QUANT, with Q4_K_M, Q8_0, F16"):
        find_gguf(folder)


def test_the_only_model_of_a_folder_needs_no_quant(tmp_path: Path, made: dict[str, Path]):
    folder = place(tmp_path / "folder", {"model.gguf": made["Q8_0"]})
    clutter(folder, made)
    assert find_gguf(folder) == folder / "model.gguf"


def test_second_names_are_one_file(tmp_path: Path, made: dict[str, Path]):
    """Q4_K and Q4_K_M of one model, as links and as copies; the one whose name was asked for."""
    copies = place(tmp_path / "copies", {f"x-{q}.gguf": made[q] for q in ("Q4_K", "Q4_K_M")})
    for folder, name in ((made["Q4_K"].parent, "tiny.{}.gguf"), (copies, "x-{}.gguf")):
        for quant in ("Q4_K", "Q4_K_M"):
            assert find_gguf(f"{folder}:{quant}") == folder / name.format(quant)
    assert find_gguf(copies) == copies / "x-Q4_K.gguf"


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"a.Q8_0.gguf": "Q8_0", "b.Q8_0.gguf": "other"}, "Q8_0"),
        ({"a.Q8_0.gguf": "Q8_0", "b.Q8_0.gguf": "other"}, None),
        ({"a.Q4_0.gguf": "Q4_0", "b.Q8_0.gguf": "other"}, "Q8_0"),
        ({"a.Q4_0.gguf": "Q4_0", "b.Q8_0.gguf": "other"}, "Q5_0"),
        ({"a.Q8_0.gguf": "Q8_0", "b.Q8_0.gguf": "Q8_0"}, "Q8_0"),  # copies, or who knows
    ],
)
def test_two_models_are_never_one_of_them(tmp_path: Path, made: dict[str, Path], files, asked):
    folder = place(tmp_path / "folder", {name: made[quant] for name, quant in files.items()})
    with pytest.raises(UsageError) as e:
        find_gguf(folder, quant=asked)
    assert all(name in str(e.value) for name in files)


def test_models_that_differ_in_weights_alone_are_told_apart(tmp_path: Path):
    """Two states of one training run, whose keys are the same."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, quant in (("a", "Q8_0"), ("b", "Q4_0")):
        files = tiny.folder_files(width=32)
        source = tiny.write(tmp_path / name, files)
        if name == "b":  # the last bit of every weight
            data = np.fromfile(source / "model.safetensors", np.uint8)
            data[8 + int(data[:8].view("<u8")[0]) :: 2] ^= 1
            data.tofile(source / "model.safetensors")
        made = quantize(source, tmp_path / f"{name}-out", quants=quant, name="run").files[0].path
        shutil.copy(made, folder / f"{name}.gguf")
    with pytest.raises(UsageError, match=r"several models. Give one: a\.gguf, b\.gguf"):
        find_gguf(f"{folder}:Q4_0")


def test_where_nothing_can_be_read_the_line_says_why(tmp_path: Path, made: dict[str, Path]):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.Q8_0.gguf").write_bytes(made["Q8_0"].read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"x\.Q8_0\.gguf"):
        find_gguf(f"{folder}:Q8_0")
    shutil.copy(made["Q4_0"], folder)
    with pytest.raises(UsageError, match=r"no Q8_0 here.*Left out: .*x\.Q8_0\.gguf"):
        find_gguf(f"{folder}:Q8_0")


def test_a_checkpoint_with_an_importance_matrix_or_one_file_in_it_is_a_checkpoint(
    tmp_path: Path, made: dict[str, Path], own_cache: Path
):
    folder = tiny.write(tmp_path / "tiny", tiny.folder_files(width=32))
    clutter(folder, made)
    path = find_gguf(f"{folder}:Q8_0")
    assert path.is_relative_to(own_cache)
    shutil.copy(made["Q4_0"], folder)
    assert find_gguf(f"{folder}:Q4_0") == folder / made["Q4_0"].name
    assert find_gguf(f"{folder}:Q8_0").is_relative_to(own_cache)
