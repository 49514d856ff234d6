"""After every run a folder tells of what lies there: files gone, damaged, added, made twice, cards edited by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint.test_neox import write_neox
from press import tiny
from press.truth import TEXTS, check_true, contents, told
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, UsageError
from pythia_gguf.press.folder import STAGING
from pythia_gguf.staging import Staging

QUANTS = "Q4_0,Q4_K_M,Q4_K,Q8_0"


# Deleted files


@pytest.mark.parametrize("gone", [("Q8_0",), ("Q4_K",), ("Q4_K_M",), ("F16",), ("Q4_0", "Q4_K_M", "F16")])
def test_a_file_that_is_gone_is_not_listed_after_the_next_run(made: Path, out: Path, gone: tuple[str, ...]):
    for quant in gone:
        (out / f"m.{quant}.gguf").unlink()
    rest = [q for q in QUANTS.split(",") if q not in gone]
    result = quantize(made / "m", out, quants=rest[0], threads=1)
    names = check_true(out)
    assert not names & {f"m.{quant}.gguf" for quant in gone}
    assert {f.quant for f in result.files} == {name.split(".")[1] for name in names}
    assert any(f"gone: m.{sorted(gone)[0]}.gguf" in note for note in result.notes)
    assert told(quantize(made / "m", out, quants=rest[0], threads=1)) == []
    assert len(quantize(made / "m", out, quants=QUANTS, keep_f16=True, threads=1).files) == 5
    assert contents(out) == contents(made / "out")


@pytest.mark.parametrize("text", TEXTS[:2])
def test_a_text_that_is_gone_or_damaged_is_written_again(made: Path, out: Path, text: str):
    before = contents(out)
    for harm in (
        lambda path: path.unlink(),
        *((lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x")) if text == "SHA256SUMS" else ()),
    ):
        harm(out / text)
        assert all(f.kept for f in quantize(made / "m", out, quants="Q4_0", threads=1).files)
        assert contents(out) == before


def test_nothing_is_written_where_all_is_true(made: Path, out: Path):
    def marks() -> dict[str, tuple[int, int]]:
        return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.iterdir()}

    before = marks()
    result = quantize(made / "m", out, quants="Q8_0", threads=1)
    assert marks() == before
    assert all(f.kept for f in result.files) and len(result.files) == 5


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # not through another name of it
    path.write_bytes(data)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-32])


@pytest.mark.parametrize("harm", [flipped, cut])
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K", "Q4_K_M", "F16"])
def test_a_damaged_file_is_said_and_made_again_when_forced(
    made: Path, out: Path, quant: str, harm: Callable[[Path], None]
):
    """Whatever else is there stays, a card that somebody has edited too."""
    card = out / "README.md"
    card.write_text(card.read_text("utf-8").replace("## How to run", "Mine.\n\n## How to run"), "utf-8")
    harm(out / f"m.{quant}.gguf")
    before, kept = contents(out), (out / "m.Q4_0.gguf").stat().st_mtime_ns
    with pytest.raises(UsageError, match=rf"m\.{quant}\.gguf exists and is not what manifest.json says.*force=True"):
        quantize(made / "m", out, quants="Q4_0", threads=1)
    assert contents(out) == before
    result = quantize(made / "m", out, quants=quant if quant != "F16" else "Q8_0", force=True, threads=1)
    assert (out / "m.Q4_0.gguf").stat().st_mtime_ns == kept
    assert {f.quant for f in result.files if f.kept} >= {"Q4_0"} and len(result.files) == 5
    check_true(out)
    assert "\nMine.\n" in card.read_text("utf-8")
    assert {n: d for n, d in contents(out).items() if n.endswith("f")} == {
        n: d for n, d in contents(made / "out").items() if n.endswith("f")
    }


def test_forced_with_another_source_everything_is_made_anew(made: Path, out: Path, tmp_path: Path):
    other = tiny.write(tmp_path / "m", tiny.folder_files(width=32) | {"README.md": b"---\ntags: [c]\n---\n# Other\n"})
    with pytest.raises(UsageError, match="was made from another source"):
        quantize(other, out, quants="Q4_0", threads=1)
    result = quantize(other, out, quants="Q4_0", force=True, threads=1)
    assert len(result.files) == 5 and not any(f.kept for f in result.files)
    check_true(out)
    assert "# Other" in (out / "README.md").read_text("utf-8")


def test_forced_under_another_name_the_old_files_are_strangers(made: Path, out: Path):
    before = {name: data for name, data in contents(out).items() if name.endswith(".gguf")}
    result = quantize(made / "m", out, quants="Q4_0", name="n", force=True, threads=1)
    assert f"not listed: {', '.join(sorted(before))}" in told(result)[0]
    assert check_true(out, strangers=frozenset(before)) == {"n.Q4_0.gguf"}
    assert before.items() <= contents(out).items()


# Two names of the same bytes


@pytest.mark.parametrize("first", ["Q4_K_M", "Q4_K", "Q3_K", "Q5_K_M"])
def test_a_quant_and_its_alias_made_in_two_runs_are_a_link(made: Path, tmp_path: Path, first: str):
    second = {"Q4_K_M": "Q4_K", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M", "Q5_K_M": "Q5_K"}[first]
    for quants in (first, second):
        quantize(made / "m", tmp_path / "two", quants=quants, threads=1)
        check_true(tmp_path / "two")
    quantize(made / "m", tmp_path / "one", quants=[first, second], threads=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_copies_become_links_again(made: Path, out: Path):
    """As after a copy to another disk and back."""
    data = (out / "m.Q4_K.gguf").read_bytes()
    (out / "m.Q4_K.gguf").unlink()
    (out / "m.Q4_K.gguf").write_bytes(data)
    assert all(f.kept for f in quantize(made / "m", out, quants="Q4_0", threads=1).files)
    check_true(out)


def test_where_no_links_can_be_made_copies_stay(made: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*paths: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (out / "m.Q4_K.gguf").unlink()
    quantize(made / "m", out, quants="Q4_K", threads=1)
    copy = (out / "m.Q4_K.gguf").stat()
    assert (copy.st_nlink, contents(out)) == (1, contents(made / "out"))
    quantize(made / "m", out, quants="Q4_K", threads=1)
    assert (out / "m.Q4_K.gguf").stat().st_mtime_ns == copy.st_mtime_ns


# The folder of the source


def spellings(folder: Path, base: Path) -> list[str]:
    """Ways to say a folder."""
    link = base / "link"
    link.symlink_to(folder)
    relative = os.path.relpath(folder)
    return [
        str(folder),
        f"{folder}/",
        relative,
        f"{folder}/../{folder.name}",
        str(link),
        f"{link}/.",
        f"./{relative}//",
    ]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("has_card", [False, True])
def test_out_that_is_the_folder_of_the_model_is_refused(tmp_path: Path, force: bool, has_card: bool):
    files = tiny.folder_files(width=32)
    if not has_card:
        del files["README.md"]
    model = tiny.write(tmp_path / "m", files)
    for out in spellings(model, tmp_path):
        for source in (str(model), f"{model}/."):
            for dry_run in (False, True):
                with pytest.raises(UsageError, match="a model lies here.*Choose another out"):
                    quantize(source, out, quants="Q4_0", force=force, dry_run=dry_run)
    assert contents(model) == files


def test_out_that_is_the_folder_of_another_model_is_refused(made: Path, tmp_path: Path):
    """Of a GGUF beside its checkpoint too, where converters put it."""
    model = tiny.write(tmp_path / "m", tiny.folder_files(width=32))
    shutil.copy(made / "g.F16.gguf", model)
    for source in (made / "m", made / "g.F16.gguf", model / "g.F16.gguf"):
        with pytest.raises(UsageError, match="a model lies here"):
            quantize(source, model, quants="Q4_0", force=True)


def test_every_folder_with_a_file_of_the_model_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A snapshot and its blobs, a checkpoint of GPT-NeoX and the step in it; the default folder of a name, too."""
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blobs = tiny.write(tmp_path / "models--x--y" / "blobs", tiny.folder_files(width=32))
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    neox = write_neox(tmp_path / "neox", 1)
    tiny.write(tmp_path / "z-GGUF", tiny.folder_files(width=32))
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    for source, out in (
        (snapshot, snapshot),
        (snapshot, blobs),
        (neox, neox),
        (neox, neox / "global_step1000"),
        (Path("z-GGUF"), None),
    ):
        with pytest.raises(UsageError, match="a model lies here"):
            quantize(source, out, quants="Q4_0", name="z", force=True)
    assert contents(tmp_path) == before


def test_a_folder_inside_the_models_or_around_it_changes_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`quantize .` writes into the model's folder, below it; the model stays what it was for the next run."""
    files = tiny.folder_files(width=32)
    model = tiny.write(tmp_path / "m", files)
    monkeypatch.chdir(model)
    inside = quantize(".", quants="Q4_0", threads=1)
    assert inside.folder == Path("m-GGUF") and check_true(model / "m-GGUF") == {"m.Q4_0.gguf"}
    around = quantize(".", "..", quants="Q4_0", threads=1)
    assert [f.sha256 for f in around.files] == [f.sha256 for f in inside.files]
    assert {name: data for name, data in contents(model).items() if "/" not in name} == files


def test_a_file_is_not_replaced_by_what_is_made_of_it(made: Path, tmp_path: Path):
    source = Path(shutil.copy(made / "g.F16.gguf", tmp_path))
    before = source.read_bytes()
    for force in (False, True):
        with pytest.raises(UsageError, match=r"g\.F16\.gguf: is what it would be made from"):
            quantize(source, tmp_path, quants="Q4_0", keep_f16=True, force=force)
    assert os.listdir(tmp_path) == ["g.F16.gguf"]
    result = quantize(source, tmp_path, quants="Q4_0", threads=1)
    assert check_true(tmp_path, strangers=frozenset([source.name])) == {"g.Q4_0.gguf"}
    assert source.read_bytes() == before and source.name in told(result)[0]


# Runs that were killed


def test_what_somebody_wrote_after_a_kill_stays(made: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed when all was ready to move; then a card and a file are put there by hand, and the next run finishes."""

    def killed(staging: Staging) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            quantize(made / "m", out, quants="Q5_0,Q5_1", threads=1)
    staged = out / STAGING / "manifest.json"
    assert staged.exists()
    later = staged.stat().st_mtime + 1
    card = (out / "README.md").read_text("utf-8") + "\nMine.\n"
    for name, data in (("README.md", card.encode()), ("m.Q5_1.gguf", b"mine")):
        (out / name).write_bytes(data)
        os.utime(out / name, (later, later))
    with pytest.raises(UsageError, match=r"m\.Q5_1\.gguf exists and is not what manifest.json says"):
        quantize(made / "m", out, quants="Q4_0", threads=1)
    assert (out / "m.Q5_1.gguf").read_bytes() == b"mine"
    (out / "m.Q5_1.gguf").unlink()
    quantize(made / "m", out, quants="Q4_0", threads=1)
    assert "m.Q5_0.gguf" in check_true(out)
    assert "\nMine.\n" in (out / "README.md").read_text("utf-8")


def test_every_error_leaves_the_folder_as_it_was(made: Path, out: Path):
    before = contents(out)
    for options in ({"mix": "2024"}, {"name": "n"}, {"imatrix": out / "m.Q4_0.gguf"}, {"quants": "Q9"}):
        with pytest.raises(PythiaGGUFError) as caught:
            quantize(made / "m", out, **{"quants": "Q4_0", "threads": 1, **options})
        assert not isinstance(caught.value, ModelFileError) or "imatrix" in options
        assert contents(out) == before
