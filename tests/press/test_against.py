"""`verify --against`: a file derives from a source or not, what differs is named, for our files and for llama.cpp's."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import oracle
from hub.loopback import LoopbackHub
from press import tiny
from press.menus import MENUS, matrix_of, menu_of, toy_source
from press.rewritten import (
    UP,
    Change,
    flip,
    in_format,
    other_model,
    put,
    reordered,
    values_of,
    version_2,
    with_keys,
    written,
)
from press.toy_gguf import model_metadata, write_gguf
from pythia_gguf import quantize, verify_against
from pythia_gguf.errors import UsageError
from pythia_gguf.gguf.imatrix import read_imatrix
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.plan.quants import MIXES, QUANTS
from pythia_gguf.press import slabs
from pythia_gguf.press.against import Comparison
from pythia_gguf.press.weights import WeightReader

DISTINCT = [q for q in QUANTS.values() if q.alias_of is None]


@pytest.mark.slow
@pytest.mark.parametrize("menu", MENUS, ids=str)
def test_every_file_of_every_mix_is_what_its_source_gives(menu: tuple[str, bool]):
    """And the other mix fits exactly where it gives the same formats."""
    mix, is_weighted = menu
    made, others = menu_of(mix, is_weighted), {}
    for other in MIXES:
        plans = quantize(toy_source(), dry_run=True, mix=other, imatrix=matrix_of(is_weighted)).files
        others[other] = {file.quant: file.plan for file in plans}
    compared = verify_against(made.folder, toy_source(), imatrix=matrix_of(is_weighted))
    assert [c.file for c in compared] == [file.path.name for file in made.files]
    for file, c in zip(made.files, compared, strict=True):
        assert (c.state, c.derives, c.fault, c.n_bytes) == ("identical", True, None, file.n_bytes)
        if file.quant == "F16":
            assert [(f.quant, f.mix, f.has_imatrix) for f in c.fits] == [("F16", "", False)]
            continue
        formats = {name: chosen[0] for name, chosen in file.plan.items()}
        same = [m for m in MIXES if {n: chosen[0] for n, chosen in others[m][file.quant].items()} == formats]
        quant = QUANTS[file.quant].alias_of or file.quant
        assert mix in same and [(f.quant, f.mix, f.has_imatrix) for f in c.fits] == [
            (quant, m, is_weighted) for m in same
        ]


@pytest.mark.slow
def test_files_of_llama_cpp_are_what_their_source_gives(tmp_path: Path):
    """All its quants of our menu, without a matrix and with one, which its keys name."""
    source = write_gguf(tmp_path / "s.gguf", model_metadata(hidden=256, n_layers=1, n_heads=4, n_ffn=256), seed=2)
    for quant in DISTINCT:
        oracle.quantize(source, tmp_path / f"{quant.name}.gguf", quant.file_type)
    matrix = read_imatrix(matrix_of(True))
    means = {name: entry.means for name, entry in matrix.entries.items() if name in open_gguf(source).tensors}
    keys: dict[str, str | int] = {
        "quantize.imatrix.file": str(matrix_of(True))[:127],
        "quantize.imatrix.dataset": "text",
        "quantize.imatrix.entries_count": len(matrix.entries),
        "quantize.imatrix.chunks_count": 1,
    }
    oracle.quantize(source, tmp_path / "weighted.gguf", QUANTS["Q4_K_S"].file_type, importances=means, keys=keys)
    compared = {c.file: c for c in verify_against(tmp_path, source, imatrix=matrix_of(True))}
    assert {name: c.state for name, c in compared.items()} == dict.fromkeys(compared, "identical")
    assert len(compared) == len(DISTINCT) + 2
    for quant in DISTINCT:
        assert (quant.name, "2026", False) in {
            (f.quant, f.mix, f.has_imatrix) for f in compared[f"{quant.name}.gguf"].fits
        }
    assert [(f.quant, f.has_imatrix) for f in compared["weighted.gguf"].fits][:1] == [("Q4_K_S", True)]


def test_a_folder_is_compared_in_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the number of files, and in memory for a few slabs, which are made small here, not for the model."""
    read: list[tuple[str, int, int]] = []
    original = WeightReader.read

    def watched(self, tensor, start, stop, *rest):  # type: ignore[no-untyped-def]
        read.append((tensor.name, start, stop))
        return original(self, tensor, start, stop, *rest)

    for file in menu_of("2026", False).files[-3:]:
        (tmp_path / file.path.name).symlink_to(file.path)
    monkeypatch.setattr(WeightReader, "read", watched)
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 16384)
    verify_against(tmp_path, toy_source(), threads=1)  # what is kept for good is not counted below
    n_slabs = len(read)
    assert n_slabs == len(set(read)) > 200
    tracemalloc.start()
    verify_against(tmp_path, toy_source(), threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(read) == 2 * n_slabs
    assert peak < (tmp_path / "toy.Q8_0.gguf").stat().st_size / 2


# What was done to a file; state; parts of the fault; a tensor or key that is named, and what is said of it.
CASES: dict[str, tuple[str, Change, str, str, dict[str, str]]] = {
    "as it was": ("m.Q8_0.gguf", lambda path: None, "identical", "", {}),
    "an alias": ("m.Q4_K.gguf", lambda path: None, "identical", "", {}),
    "the unquantized file": ("m.F16.gguf", lambda path: None, "identical", "", {}),
    "a bit": ("m.Q8_0.gguf", flip(34 * 5), "differs", "1 of 16 tensors differs", {UP: "Q8_0 differs from row 5 on"}),
    "a bit of a bias": (
        "m.Q8_0.gguf",
        flip(4, "output_norm.bias"),
        "differs",
        "1 of 16 tensors differs",
        {"output_norm.bias": "F32 differs in its values"},
    ),
    "cut short": (
        "m.Q8_0.gguf",
        lambda path: os.truncate(path, path.stat().st_size - 40),
        "unreadable",
        "truncated",
        {},
    ),
    "longer": (
        "m.Q8_0.gguf",
        lambda path: os.truncate(path, path.stat().st_size + 1),
        "unreadable",
        "1 bytes follow",
        {},
    ),
    "a pointer": (
        "m.Q8_0.gguf",
        put(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"),
        "unreadable",
        "Git LFS pointer",
        {},
    ),
    "a matrix of importances": (
        "m.Q8_0.gguf",
        put(lambda: (toy_source().parent / "imatrix.gguf").read_bytes()),
        "unreadable",
        "importance matrix",
        {},
    ),
    "another model": (
        "m.Q8_0.gguf",
        other_model(),
        "differs",
        "16 of 16 tensors differ: the file is of another model or step",
        {"output_norm.bias": "F32 differs in its values"},
    ),
    "another size": (
        "m.F16.gguf",
        other_model(64),
        "differs",
        "16 of 16 tensors differ: the file is of another model or step",
        {"output_norm.bias": "has shape [64], expected [32]"},
    ),
    "another name": (
        "m.Q4_0.gguf",
        with_keys(lambda keys: keys | {"general.name": "X"}),
        "metadata",
        "1 key differs",
        {"general.name": "X, expected M"},
    ),
    "another type": (
        "m.Q4_0.gguf",
        with_keys(lambda keys: keys | {"general.file_type": np.int32(2)}),
        "metadata",
        "1 key differs",
        {"general.file_type": "i32 2, expected u32 2"},
    ),
    "a key more and one less": (
        "m.Q4_0.gguf",
        with_keys(lambda keys: {k: v for k, v in keys.items() if k != "general.name"} | {"general.x": True}),
        "metadata",
        "2 keys differ",
        {"general.x": "True, expected no such key", "general.name": "missing, expected M"},
    ),
    "keys in another order": (
        "m.Q4_0.gguf",
        with_keys(lambda keys: dict(reversed(keys.items()))),
        "metadata",
        "its keys are in another order",
        {},
    ),
    "tensors in another order": ("m.Q4_0.gguf", reordered, "metadata", "its tensors are in another order", {}),
    "version 2": ("m.Q4_0.gguf", version_2, "metadata", "is GGUF version 2, expected 3", {}),
    "bytes between tensors": (
        "m.Q4_0.gguf",
        flip(tiny.N_ROWS * 18 + 3, "token_embd.weight"),
        "metadata",
        "the bytes after tensor token_embd.weight are not zeros",
        {},
    ),
    "formats of no quant": (
        "m.F16.gguf",
        in_format("F32", UP),
        "formats",
        "no quant of ours has these formats together; nearest is",
        {},
    ),
    "a format that nothing is rounded to": (
        "m.F16.gguf",
        in_format("BF16", UP),
        "differs",
        "1 of 16 tensors differs",
        {UP: "is BF16, which is not made of F16"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_differs_is_named(name: str, made: Path, tmp_path: Path, pythia):
    """In Python, as text and as JSON; the other file beside it stays identical."""
    file, change, state, fault, details = CASES[name]
    (tmp_path / "out").mkdir()
    for each in {file, "m.Q4_K_M.gguf"}:
        shutil.copy(made / "out" / each, tmp_path / "out")
    change(tmp_path / "out" / file)
    by_name = {c.file: c for c in verify_against(tmp_path / "out", made / "m")}
    assert by_name["m.Q4_K_M.gguf"].state == "identical"
    c = by_name[file]
    assert (c.state, c.derives) == (state, state in ("identical", "metadata", "formats"))
    assert fault in (c.fault or "") and (c.fault is None) == (state == "identical")
    code, out, err = pythia("verify", tmp_path / "out" / file, "--against", made / "m")
    assert (code, len(err.splitlines())) == ((0, 0) if state == "identical" else (65, 1))
    lines = out.splitlines()
    assert lines[0].startswith(f"{state:10}  {file}  {'' if c.fault is None else c.fault}"[:150])
    assert len(lines) <= 12 and all(f"{' ' * 12}{key}: {said}" in lines for key, said in details.items())
    code, out, _ = pythia("verify", tmp_path / "out" / file, "--against", made / "m", "--output-format", "json")
    (told,) = json.loads(out)["files"]
    assert (told["state"], told["derives"], told["fault"]) == (c.state, c.derives, c.fault)
    assert told["tensors"] == c.tensors and {k["key"] for k in told["keys"]} == {k.key for k in c.keys}
    assert set(details) <= {*told["tensors"], *(k["key"] for k in told["keys"])}


@pytest.mark.parametrize("kind", ["folder", "gguf", "shards", "bins", "hub", "step", "run"])
def test_a_source_may_be_whatever_quantize_takes(kind: str, made: Path, tmp_path: Path, hub: LoopbackHub, pythia):
    files, repo = tiny.folder_files(width=32), "EleutherAI/pythia-14m"
    source = str(made / "m")
    if kind == "gguf":
        source = str(made / "out" / "m.F16.gguf")
    elif kind in ("shards", "bins"):
        make = tiny.sharded if kind == "shards" else tiny.sharded_bins
        source = str(tiny.write(tmp_path / "m", make(files)))
    elif kind == "run":
        (tmp_path / "run").mkdir()
        tiny.write(tmp_path / "run" / "step10", files)
        source = f"{tmp_path / 'run'}@step10"
    elif kind in ("hub", "step"):
        hub.add(repo, files, branch="main" if kind == "hub" else "step3000")
        source = "pythia-14m" if kind == "hub" else "pythia-14m@step3000"
    code, out, err = pythia("verify", made / "out", "--against", source, "--output-format", "json")
    told = {file["file"]: file["state"] for file in json.loads(out)["files"]}
    assert len(told) == 5 and set(told.values()) == {"identical"} or kind in ("shards", "bins")
    if kind in ("shards", "bins"):  # the unquantized file has the order of its checkpoint
        (other,) = (file for file in json.loads(out)["files"] if file["state"] != "identical")
        assert (other["file"], other["fault"]) == ("m.F16.gguf", "its tensors are in another order")
    assert code == (0 if set(told.values()) == {"identical"} else 65), err


def test_a_published_file_is_compared_with_the_checkpoint_that_it_names(made: Path, hub: LoopbackHub, pythia):
    """Both by their names on the Hub, and no weight of the checkpoint is kept."""
    hub.add("EleutherAI/pythia-14m", tiny.folder_files(width=32), branch="step3000")
    hub.add("user/m-GGUF", made / "out")
    code, out, err = pythia("verify", "user/m-GGUF:Q8_0", "--against", "pythia-14m@step3000")
    assert (code, err) == (0, "") and out.split() == [
        "identical",
        "m.Q8_0.gguf",
        "Q8_0",
        "of",
        "mixes",
        "2026",
        "and",
        "2024",
    ]
    assert not list(Path(constants.HF_HUB_CACHE).rglob("model.safetensors"))


def test_what_is_wrong_with_a_source_or_a_place_is_one_line(made: Path, tmp_path: Path, pythia):
    for place, source, code, says in (
        (made / "out", tmp_path / "none", 74, "no such file or folder"),
        (made / "none", made / "m", 74, "no such file or folder"),
        (tmp_path, made / "m", 74, "no .gguf file to check"),
        (made / "out", made / "out" / "m.Q8_0.gguf", 65, "is already quantized (Q8_0)"),
        (made / "out", made / "out", 65, "is a folder of GGUF files"),
    ):
        got, out, err = pythia("verify", place, "--against", source)
        assert (got, out, len(err.splitlines())) == (code, "", 1) and says in err, err
    with pytest.raises(UsageError, match="^threads must be at least 1"):
        verify_against(made / "out", made / "m", threads=0)
    for option in ("--imatrix", "--threads"):
        code, _, err = pythia("verify", made / "out", option, "2")
        assert code == 2 and f"{option} changes nothing without --against" in err


def test_missing_files_are_told_apart(out: Path, made: Path, pythia):
    (out / "m.Q8_0.gguf").unlink()
    by_name = {c.file: c.state for c in verify_against(out, made / "m")}
    assert by_name.pop("m.Q8_0.gguf") == "missing" and set(by_name.values()) == {"identical"}
    code, shown, err = pythia("verify", out, "--against", made / "m")
    assert code == 74 and "1 of 5 files are missing" in err and "--ignore-missing" in err
    assert pythia("verify", out, "--against", made / "m", "--ignore-missing")[0] == 0
    flip(0)(out / "m.Q4_0.gguf")
    assert pythia("verify", out, "--against", made / "m")[0] == 65


def test_a_name_that_was_given_is_that_of_the_manifest(made: Path, tmp_path: Path):
    """Without the manifest only the key that holds it differs."""
    quantize(made / "m", tmp_path / "out", quants="Q8_0", name="other")
    (c,) = verify_against(tmp_path / "out", made / "m")
    assert c.state == "identical"
    (tmp_path / "out" / "manifest.json").unlink()
    (c,) = verify_against(tmp_path / "out", made / "m")
    assert (c.state, [k.key for k in c.keys]) == ("metadata", ["general.name"])


def states(compared: tuple[Comparison, ...]) -> dict[str, str]:
    return {c.file: c.state for c in compared}


def test_a_file_is_compared_with_the_matrix_that_made_it(tmp_path: Path, pythia):
    """Without it the file differs, and its keys tell why; keys that tell nothing, or too much, are seen through."""
    folder = tmp_path / "files"
    folder.mkdir()
    made, plain = menu_of("2026", True), menu_of("2026", False)
    of = {file.quant: file.path for file in made.files}
    shutil.copy(of["Q4_0"], folder / "with.gguf")
    shutil.copy(of["Q4_0"], folder / "silent.gguf")
    with_keys(lambda keys: {k: v for k, v in keys.items() if "imatrix" not in k})(folder / "silent.gguf")
    shutil.copy(next(f.path for f in plain.files if f.quant == "Q4_0"), folder / "without.gguf")
    shutil.copy(folder / "without.gguf", folder / "boasts.gguf")
    with_keys(lambda keys: keys | {"quantize.imatrix.file": "x.gguf"})(folder / "boasts.gguf")
    compared = verify_against(folder, toy_source(), imatrix=matrix_of(True))
    assert {c.file: (c.state, {f.has_imatrix for f in c.fits}, len(c.keys)) for c in compared} == {
        "boasts.gguf": ("metadata", {False}, 1),
        "silent.gguf": ("metadata", {True}, 4),
        "with.gguf": ("identical", {True}, 0),
        "without.gguf": ("identical", {False}, 0),
    }
    assert states(verify_against(folder, toy_source())) == {
        "boasts.gguf": "metadata",
        "silent.gguf": "differs",
        "with.gguf": "differs",
        "without.gguf": "identical",
    }
    _, out, _ = pythia("verify", folder / "with.gguf", "--against", toy_source())
    assert f"its keys name the importance matrix {matrix_of(True)}: give it with --imatrix" in out


def test_the_nearest_quant_of_other_formats_is_told(tmp_path: Path):
    """As of llama-quantize --tensor-type: one tensor keeps more bits than Q4_K_M gives it."""
    encoded = {file.quant: file.path for file in menu_of("2026", False).files}
    path = tmp_path / "m.gguf"
    shutil.copy(encoded["Q4_K_M"], path)
    values, name = values_of(path), "blk.3.ffn_up.weight"
    written(path, open_gguf(path).metadata, values | {name: values_of(encoded["Q8_0"])[name]})
    (c,) = verify_against(path, toy_source())
    assert (c.state, c.fits, dict(c.tensors)) == ("formats", (), {name: "is Q8_0, expected Q4_K"})
    assert c.fault == "no quant of ours has these formats together; nearest is Q4_K_M of mix 2026"


def test_nothing_is_written(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(made / "out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)

    def there() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")}

    before = there()
    verify_against("out", made / "m")
    assert there() == before
