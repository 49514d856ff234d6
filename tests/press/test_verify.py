"""`verify` finds one flipped bit anywhere in any file, and says where it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from press import tiny
from pythia_gguf import open_gguf, quantize, verify
from pythia_gguf.errors import ModelFileError, StorageError

QUANTS = "Q4_0,Q5_1,Q8_0,Q4_K_M,Q4_K"


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
        if name == "m.Q4_K_M.gguf":
            assert faults.pop("m.Q4_K.gguf")  # the same file by another name
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


def only(*names: str) -> Callable[[Path], None]:
    """What is left of a folder when these files were fetched, with the texts."""

    def change(folder: Path) -> None:
        for path in folder.glob("*.gguf"):
            if path.name not in names:
                path.unlink()

    return change


def flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).unlink()  # not through the other name of the file
        (folder / name).write_bytes(data)

    return change


def put(name: str, content: bytes | None) -> Callable[[Path], None]:
    """A file of some content; None: a link to nothing, as in a cache of which not all was fetched."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if content is None:
            (folder / name).symlink_to("../blobs/0123")
        else:
            (folder / name).write_bytes(content)

    return change


def copies(folder: Path) -> None:
    for path in sorted(folder.glob("*.gguf")):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)


def nothing(folder: Path) -> None:
    pass


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
ALL = ("m.Q4_0.gguf", "m.Q4_K.gguf", "m.Q4_K_M.gguf", "m.Q5_1.gguf", "m.Q8_0.gguf", "m.F16.gguf")
# What was done to a folder, with a manifest and with SHA256SUMS alone; files that are not ok; exit codes without and
# with --ignore-missing.
CASES: dict[str, tuple[list[Callable[[Path], None]], dict[str, str], int, int]] = {
    "whole": ([nothing], {}, 0, 0),
    "aliases as copies": ([copies], {}, 0, 0),
    "one of all": ([only("m.Q8_0.gguf")], {n: "missing" for n in ALL if n != "m.Q8_0.gguf"}, 74, 0),
    "an alias alone": ([only("m.Q4_K.gguf")], {n: "missing" for n in ALL if n != "m.Q4_K.gguf"}, 74, 0),
    "an alias missing": ([only(*(n for n in ALL if n != "m.Q4_K.gguf"))], {"m.Q4_K.gguf": "missing"}, 74, 0),
    "a link to nothing": ([put("m.Q5_1.gguf", None)], {"m.Q5_1.gguf": "missing"}, 74, 0),
    "none of all": ([only()], dict.fromkeys(ALL, "missing"), 74, 74),
    "one damaged": ([flip("m.Q8_0.gguf")], {"m.Q8_0.gguf": "damaged"}, 65, 65),
    "one damaged, one missing": (
        [only(*ALL[:4], "m.F16.gguf"), flip("m.Q4_0.gguf")],
        {"m.Q4_0.gguf": "damaged", "m.Q8_0.gguf": "missing"},
        65,
        65,
    ),
    "an alias damaged": ([copies, flip("m.Q4_K.gguf")], {"m.Q4_K.gguf": "damaged"}, 65, 65),
    "a pointer": ([put("m.Q8_0.gguf", POINTER)], {"m.Q8_0.gguf": "damaged"}, 65, 65),
    "cut short": ([put("m.Q8_0.gguf", b"GGUF")], {"m.Q8_0.gguf": "damaged"}, 65, 65),
    "one that nobody lists": ([put("other.gguf", tiny.gguf_bytes())], {"other.gguf": "unknown"}, 0, 0),
    "rubbish that nobody lists": ([put("other.gguf", b"rubbish")], {"other.gguf": "damaged"}, 65, 65),
}


@pytest.mark.parametrize("listed_by", ["manifest.json", "SHA256SUMS"])
@pytest.mark.parametrize("name", CASES)
def test_missing_and_damaged_are_told_apart(name: str, listed_by: str, folder: Path, tmp_path: Path, pythia):
    changes, states, code, code_ignoring = CASES[name]
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    (work / ("manifest.json" if listed_by == "SHA256SUMS" else "SHA256SUMS")).unlink()
    for change in changes:
        change(work)
    verdicts = verify(work)
    assert {v.file: v.state for v in verdicts if v.state != "ok"} == states
    for v in verdicts:
        assert (v.fault is not None) == (v.state in ("damaged", "missing"))
        assert v.checked == {"missing": "nothing"}.get(v.state, "every byte" if v.file in ALL else "header and sizes")
    for flags, expected in (([], code), (["--ignore-missing"], code_ignoring)):
        got, out, err = pythia("verify", work, "--output-format", "json", *flags)
        assert got == expected, err
        if out:
            told = json.loads(out)
            shown = {n: s for n, s in states.items() if s != "missing" or not flags}
            assert {f["file"]: f["state"] for f in told["files"] if f["state"] != "ok"} == shown
            n_missing, n_damaged = ([*shown.values()].count(s) for s in ("missing", "damaged"))
            assert (told["ok"], told["missing"], told["damaged"]) == (expected == 0, n_missing, n_damaged)
            said = err.replace(str(tmp_path), "")
            assert ("missing" in said, "damaged" in said) == (n_missing > 0, n_damaged > 0)
        else:
            assert "none of 6 listed files is here" in err
        got, out, err = pythia("verify", work, *flags)
        assert got == expected and len(err.splitlines()) == (expected != 0)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda text: text.replace("0", "1"), "differs from manifest.json on m.Q4_0.gguf"),
        (lambda text: text.partition("\n")[2], "differs from manifest.json on m.Q4_0.gguf"),
        (lambda text: "x", "expected lines of a hash and a name"),
        (lambda text: text + f"{'0' * 64}  mine.txt\n", None),
        (lambda text: text.replace("\n", "\r\n"), None),
    ],
)
def test_sums_that_say_something_else_than_the_manifest_are_damaged(
    harm: Callable[[str], str], says: str | None, folder: Path, tmp_path: Path
):
    shutil.copytree(folder, tmp_path / "work")
    sums = tmp_path / "work" / "SHA256SUMS"
    sums.write_bytes(harm(sums.read_text("utf-8")).encode())
    faults = [v for v in verify(tmp_path / "work") if v.state != "ok"]
    assert [(v.file, v.state) for v in faults] == ([("SHA256SUMS", "damaged")] if says else [])
    assert says is None or says in str(faults[0].fault)


def test_a_missing_alias_says_what_it_is_another_name_of(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "work")
    (tmp_path / "work" / "m.Q4_K.gguf").unlink()
    (verdict,) = (v for v in verify(tmp_path / "work") if v.state == "missing")
    assert str(verdict.fault).endswith("m.Q4_K.gguf: is missing. It is another name of m.Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "expected lines"),
        ("0" * 63 + "  a", "expected lines"),
        ("0" * 64 + "  ../a", "is not the name"),
        ("x", "'x'"),
    ],
)
def test_sums_that_cannot_be_read_are_one_line(line: str, says: str, tmp_path: Path):
    (tmp_path / "SHA256SUMS").write_text(f"{line}\n")
    with pytest.raises(ModelFileError, match=says) as e:
        verify(tmp_path)
    assert "\n" not in str(e.value)


def test_nothing_to_check_is_an_error(tmp_path: Path):
    with pytest.raises(StorageError, match="no manifest.json, no SHA256SUMS and no .gguf"):
        verify(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "files": []}')
    assert os.listdir(tmp_path) == ["manifest.json"]
    with pytest.raises(StorageError, match="to check"):
        verify(tmp_path)


def test_ignore_missing_needs_a_list(folder: Path, tmp_path: Path, pythia):
    shutil.copy(folder / "m.Q8_0.gguf", tmp_path)
    for path in (tmp_path, tmp_path / "m.Q8_0.gguf", folder / "m.Q8_0.gguf"):
        code, _, err = pythia("verify", path, "--ignore-missing")
        assert code == 2 and "--ignore-missing is for a folder" in err
        assert pythia("verify", path)[0] == 0
