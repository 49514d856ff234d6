"""Which files a report is of: by their headers under any name, each beside the reference of its own model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.nano import HELDOUT, NANO, nano_files
from evals.trained import trained_further
from pythia_gguf import quantize
from pythia_gguf.errors import LockedError, ModelFileError, StorageError, UsageError
from pythia_gguf.evals import files as module
from pythia_gguf.evals.files import measure_files
from pythia_gguf.evals.model_files import find_files, folders_that_tell_apart, pair_with_references
from pythia_gguf.evals.report import labels
from pythia_gguf.lock import lock

SHORT = {"text": HELDOUT, "context": 64, "n_windows": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders one/ and two/ with the files of two models of the same sizes, called alike; odd/ with odd names."""
    root = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        source = root / "hf" / name
        shutil.copytree(NANO, source)
        if name == "two":  # the first weights of another run
            data = bytearray((source / "model.safetensors").read_bytes())
            at = len(data) - 4096
            data[at : at + 2048] = data[at + 2048 : at + 4096]
            (source / "model.safetensors").write_bytes(data)
        quantize(source, root / name, quants="Q4_0,Q8_0", keep_f16=True, name=name)
        for path in (root / name).glob("*.gguf"):
            path.rename(path.with_name(path.name.replace(f"{name}.", "nano.")))
    odd = root / "odd"
    odd.mkdir()
    for wrong, quant in (("x-Q4_0.gguf", "Q8_0"), ("Pythia-70M-F16.gguf", "F16"), ("a.gguf", "Q4_0")):
        shutil.copy(root / "one" / f"nano.{quant}.gguf", odd / wrong)
    return root


def rows(report: dict) -> dict[tuple[str, str, str], dict]:
    return {(f.get("folder", ""), f["quant"], f["activations"]): f for f in report["files"]}


def test_every_command_tells_the_quant_that_a_file_holds_whatever_it_is_called(pythia, models: Path, tmp_path: Path):
    from cli.command_lines import write_task

    write_task(tmp_path / "tasks")
    odd = models / "odd"
    code, out, err = pythia("measure", odd, *("--text", HELDOUT, "--context", "64", "--chunks", "2"))
    assert code == 0, err
    assert "reference Pythia-70M-F16.gguf" in out
    told = {tuple(line.split()[:2]) for line in out.splitlines()[4:]}
    assert told == {("Q8_0", "int8"), ("Q4_0", "int8"), ("F16", "float32")}
    truth = {"x-Q4_0.gguf": ("Q8_0", "int8"), "Pythia-70M-F16.gguf": ("F16", "float32")}
    for name, (quant, activations) in truth.items():
        task = ("--tasks", "two_words", "--include-path", tmp_path / "tasks", "--output-format", "json")
        code, out, err = pythia("eval", odd / name, *task)
        assert code == 0, err
        config = json.loads(out)["config"]
        assert (config["pythia_gguf"]["quant"], config["model_dtype"]) == (quant, quant)
        assert config["pythia_gguf"]["activations"] == activations
        for arguments in (
            ("score", odd / name, "--prompt", "a", "--continuation", " b"),
            ("generate", odd / name, "a", "--max-tokens", "1"),
            ("bench", odd / name, "--prompt", "4", "--tokens", "1", "--repeats", "1"),
        ):
            code, out, err = pythia(*arguments, "--output-format", "json")
            assert code == 0, err
            assert json.loads(out)["activations"] == activations
        code, out, err = pythia("inspect", odd / name, "--output-format", "json")
        assert json.loads(out)["quant"] == quant


def test_names_do_not_change_numbers(models: Path):
    by_name, by_header = (rows(measure_files([models / folder], **SHORT)) for folder in ("one", "odd"))
    assert by_name.keys() == by_header.keys()
    for key, row in by_name.items():
        assert (row["ppl"], row["kl_mean"]) == (by_header[key]["ppl"], by_header[key]["kl_mean"])


def test_two_folders_of_equal_names_are_two_rows_each_with_its_own_reference(models: Path, pythia, tmp_path: Path):
    found = rows(measure_files([models / "one", models / "two"], **SHORT))
    assert {(folder, quant) for folder, quant, _ in found} == {
        (folder, quant) for folder in ("one", "two") for quant in ("F16", "Q4_0", "Q8_0")
    }
    for folder in ("one", "two"):
        alone = rows(measure_files([models / folder], **SHORT))
        for (_, quant, kind), row in alone.items():
            both = found[folder, quant, kind]
            assert (both["ppl"], both["kl_mean"]) == (row["ppl"], row["kl_mean"])
        assert found[folder, "F16", "float32"]["kl_mean"] == pytest.approx(0, abs=1e-7)
    assert found["one", "Q8_0", "int8"]["ppl"] != found["two", "Q8_0", "int8"]["ppl"]
    code, out, err = pythia(
        "measure", models / "one", models / "two", "--text", HELDOUT, "--context", "64", "--chunks", "2"
    )
    assert code == 0, err
    assert [line.split(":")[0] for line in out.splitlines() if line.startswith("reference ")] == [
        "reference one/nano.F16.gguf",
        "reference two/nano.F16.gguf",
    ]
    assert "Q8_0 (two/nano.Q8_0.gguf)" in out
    assert str(models) not in out


def test_a_file_is_not_compared_with_another_model(models: Path, tmp_path: Path):
    """Of a folder with two models each file has the reference of its model, or is refused by name."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, as_called in (("one", "b"), ("two", "a")):
        for quant in ("F16", "Q8_0"):
            shutil.copy(models / name / f"nano.{quant}.gguf", mixed / f"{as_called}-{quant}.gguf")
    pairs = pair_with_references(find_files([mixed]), None)
    assert {base.path.name: {f.path.name for f in files} for base, files in pairs} == {
        "a-F16.gguf": {"a-F16.gguf", "a-Q8_0.gguf"},
        "b-F16.gguf": {"b-F16.gguf", "b-Q8_0.gguf"},
    }
    (mixed / "a-F16.gguf").unlink()
    with pytest.raises(UsageError, match=r"a-Q8_0\.gguf: no unquantized file of this model beside it"):
        measure_files([mixed], **SHORT)
    shutil.copy(models / "one" / "nano.F16.gguf", mixed / "c-F16.gguf")
    os.remove(mixed / "a-Q8_0.gguf")
    (mixed / "b-Q8_0.gguf").rename(mixed / "d.gguf")
    with pytest.raises(UsageError, match=r"d\.gguf: compared with which, .*-F16\.gguf or .*-F16\.gguf"):
        measure_files([mixed / "d.gguf"], **SHORT)


def test_the_reference_is_of_the_same_weights_not_only_of_the_same_name(models: Path, tmp_path: Path, pythia):
    """A folder whose only unquantized file is another model's of one name, sizes and file names."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    further = tmp_path / "hf" / "one"
    quantize(trained_further(models / "hf" / "one", further), tmp_path / "further", quants=[], keep_f16=True)
    shutil.copy(tmp_path / "further" / "one.F16.gguf", mixed / "nano.F16.gguf")
    shutil.copy(models / "one" / "nano.Q8_0.gguf", mixed)
    with pytest.raises(UsageError, match=r"nano\.Q8_0\.gguf: no unquantized file of this model beside it: .*reference"):
        measure_files([mixed / "nano.Q8_0.gguf"], **SHORT)
    # Among what was given there is the right one.
    found = rows(measure_files([mixed / "nano.Q8_0.gguf", models / "one" / "nano.F16.gguf"], **SHORT))
    alone = rows(measure_files([models / "one"], **SHORT))
    assert found["", "Q8_0", "int8"]["kl_mean"] == alone["", "Q8_0", "int8"]["kl_mean"]
    # Who names it gets what was asked for, and hears of it, in the table too.
    given = ("--reference", mixed / "nano.F16.gguf", "--text", HELDOUT, "--context", "64", "--chunks", "2")
    code, out, err = pythia("measure", mixed / "nano.Q8_0.gguf", *given)
    assert code == 0, err
    said = "its norms and biases are not the reference's, as of another model"
    assert f"nano.Q8_0.gguf: {said}\n" in err and f"\n- Q8_0: {said}" in out


def test_gelu_is_each_files_own(tmp_path: Path):
    """A tanh model beside a reference that no manifest tells of, and beside an erf model; differing ones are said."""
    config = json.loads((NANO / "config.json").read_text("utf-8"))
    shutil.copytree(NANO, tmp_path / "hf" / "nano")
    (tmp_path / "hf" / "nano" / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_fast"}), "utf-8")
    tanh = quantize(tmp_path / "hf" / "nano", tmp_path / "tanh", quants=[], keep_f16=True).folder / "nano.F16.gguf"
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "tanh" / "nano.F16.gguf", alone)
    erf, told = nano_files()["Q8_0"], list[str]()
    found = measure_files([tanh, erf], reference=alone / "nano.F16.gguf", tell=told.append, **SHORT)
    by_gelu = {row["gelu"]: row for row in found["files"]}
    assert found["reference"]["gelu"] == "erf" and found["gelu"] == "erf and tanh"
    assert told == ["nano.F16.gguf: it runs with tanh GELU, its reference with erf"]
    assert by_gelu["tanh"]["note"] == "it runs with tanh GELU, its reference with erf" and "note" not in by_gelu["erf"]
    # The same weights: all that is between them is GELU.
    own = {row["gelu"]: row for row in measure_files([tanh, erf], **SHORT)["files"]}
    assert by_gelu["tanh"]["kl_mean"] > 1e-7 > own["tanh"]["kl_mean"]
    assert by_gelu["erf"]["kl_mean"] == own["erf"]["kl_mean"]
    told.clear()
    one = measure_files([tanh, erf], reference=alone / "nano.F16.gguf", gelu="tanh", tell=told.append, **SHORT)
    assert ({row["gelu"] for row in one["files"]}, told) == ({"tanh"}, [])


def test_every_row_has_the_hash_of_its_file_and_how_it_was_run(models: Path):
    report = measure_files([models / "one", models / "two"], activations="both", **SHORT)
    places = {"one": models / "one", "two": models / "two"}
    for row in [report["reference"], *report["files"], *(f["against"] for f in report["files"] if "against" in f)]:
        path = places[row["folder"]] / row["file"]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert {row["kv"], row["gelu"], row["activations"]} <= {"f16", "erf", "int8", "float32"}
    assert report["text"]["sha256"] == hashlib.sha256(HELDOUT.read_bytes()).hexdigest()
    assert (report["text"]["context"], report["text"]["windows"]) == (64, 2)


def test_other_sizes_and_other_tokens_than_the_references_are_refused():
    (file,) = find_files([nano_files()["Q8_0"]])
    wide = replace(file, shapes={**file.shapes, "output_norm.weight": (512,)})
    for other, said in (
        (wide, "output_norm.weight is 512, and 256 there"),
        (replace(file, shapes={**file.shapes, "more.weight": (2, 3)}), "more.weight is 2 x 3, and missing there"),
        (replace(file, tokens=1), "its tokens are others"),
    ):
        with pytest.raises(UsageError, match=f"not the same model as .*F16.gguf: {said}"):
            pair_with_references([other], nano_files()["F16"])


def test_a_file_that_is_replaced_before_its_turn_is_no_number_of_the_one_that_was_hashed(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(models / "one", tmp_path / "one")
    path = tmp_path / "one" / "nano.Q4_0.gguf"
    load = module.load

    def replaced(file: Path, **options: object) -> object:
        if file.name == "nano.F16.gguf":  # the reference is the first to be loaded
            shutil.copy(models / "two" / "nano.Q4_0.gguf", tmp_path / "new")
            os.replace(tmp_path / "new", path)
        return load(file, **options)

    monkeypatch.setattr(module, "load", replaced)
    with pytest.raises(ModelFileError, match=r"nano\.Q4_0\.gguf: was replaced since it was hashed"):
        measure_files([tmp_path / "one"], **SHORT)


def test_links_are_rows_beside_their_file(tmp_path: Path):
    quantize(NANO, tmp_path / "out", quants="Q4_K,Q4_K_M", keep_f16=True)
    os.link(tmp_path / "out" / "nano.Q4_K_M.gguf", tmp_path / "out" / "z.gguf")
    report = measure_files([tmp_path / "out"], **SHORT)
    named = {f["file"]: (f["quant"], f.get("alias_of")) for f in report["files"]}
    assert named == {
        "nano.F16.gguf": ("F16", None),
        "nano.Q4_K_M.gguf": ("Q4_K_M", None),
        "nano.Q4_K.gguf": ("Q4_K", "Q4_K_M"),
        "z.gguf": ("Q4_K_M", "Q4_K_M"),
    }
    assert set(labels(report["files"])) == {"F16", "Q4_K", "Q4_K_M (nano.Q4_K_M.gguf)", "Q4_K_M (z.gguf)"}


def test_folders_are_told_by_as_little_as_tells_them_apart():
    paths = [Path("/home/me/a/out/x"), Path("/home/me/b/out/x"), Path("/home/me/c/y"), Path("/home/you/c/z")]
    assert folders_that_tell_apart(paths) == {paths[0]: "a/out", paths[1]: "b/out"}


def test_the_reference_is_computed_once_and_threads_are_those_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Each window once through each file and once through the reference, whatever the page cache holds."""
    seen: list[tuple[str, int]] = []

    class Counting(module.Windows):
        def logits(self, ids, n_last=None):
            seen.append((self.model.path.name, self.model.threads))
            return super().logits(ids, n_last)

    monkeypatch.setattr(module, "Windows", Counting)
    files = [nano_files()[quant] for quant in ("Q4_0", "Q5_0", "Q8_0")]
    measure_files(files, threads=1, **SHORT)
    names = [name for name, _ in seen]
    assert {name: names.count(name) for name in names} == dict.fromkeys(
        ("nano.F16.gguf", *(path.name for path in files)), 2
    )
    assert {n for _, n in seen} == {1}


def test_a_report_is_not_lost_unasked(tmp_path: Path):
    out, files = tmp_path / "r.json", nano_files()
    both = [files["Q4_0"], files["Q8_0"]]
    measure_files([files["Q4_0"]], out=out, **SHORT)
    measure_files(both, out=out, **SHORT)  # says all that was said
    kept = out.read_bytes()
    for options, said in (
        ({"files": [files["Q4_0"]]}, r"is of more files: nano\.Q8_0\.gguf with int8"),
        ({"files": both, "n_windows": 1}, "another text, or windows of it"),
        ({"files": both, "context": 32}, "another text, or windows of it"),
        ({"files": both, "gelu": "tanh"}, "is of more files"),
        ({"files": both, "reference": files["Q6_K"]}, "compares with another reference"),
        ({"files": both, "activations": "float32"}, "is of more files"),
    ):
        with pytest.raises(StorageError, match=rf"^{out} exists and .*{said}.*force=True"):
            measure_files(**(SHORT | options), out=out)
        assert out.read_bytes() == kept
    measure_files([files["Q4_0"]], out=out, force=True, **SHORT)
    assert len(json.loads(out.read_text("utf-8"))["files"]) == 1
    notes = tmp_path / "notes.json"
    notes.write_text("{}")
    with pytest.raises(StorageError, match="is no report of pythia measure"):
        measure_files(both, out=notes, **SHORT)
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "notes.json"}


def test_two_runs_do_not_write_one_report(pythia, tmp_path: Path):
    out = tmp_path / "r.json"
    commands = (
        ("measure", nano_files()["Q8_0"], "--text", HELDOUT, "-o", out),
        ("imatrix", nano_files()["F16"], "--text", HELDOUT, "-o", out),
        ("eval", nano_files()["Q8_0"], "--tasks", "none", "-o", out),
    )
    with lock(tmp_path / ".r.json.lock"):
        with pytest.raises(LockedError):
            measure_files([nano_files()["Q8_0"]], out=out, **SHORT)
        for arguments in commands:
            code, told, err = pythia(*arguments)
            assert (code, told) == (75, ""), err
            assert err == (
                f"Error: {out}: process {os.getpid()} is going to write this file. Wait until it has ended, or choose"
                " another --out\n"
            )
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_shown(pythia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder that goes away while models run stands for a full disk: the table, then one line; numbers are kept."""
    folder = tmp_path / "there"
    folder.mkdir()
    write = module.write_text

    def gone(path: Path, text: str) -> None:
        folder.rename(tmp_path / "gone")
        write(path, text)

    monkeypatch.setattr(module, "write_text", gone)
    arguments = ("measure", nano_files()["Q8_0"], "--text", HELDOUT, "--context", "64", "--chunks", "2")
    code, out, err = pythia(*arguments, "-o", folder / "r.json")
    assert code == 74, err
    assert "\nQ8_0  " in out
    assert (
        err.splitlines()[-1]
        == f"Error: {folder / 'r.json'}: cannot write: No such file or directory. Does the folder exist?"
    )
    assert [p.name for p in (tmp_path / "gone").iterdir() if p.suffix not in (".lock", ".pid")] == [
        ".r.json.partial.npz"
    ]
