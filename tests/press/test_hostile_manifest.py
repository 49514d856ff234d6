"""A hostile manifest.json: refused, or its files are at fault, in one line; and names that no file can have."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.press.verify import verify

ENTRY = {"file": "x.gguf", "bytes": 1, "sha256": "0" * 64}


def folder_with(tmp_path: Path, **change: object) -> Path:
    manifest = {"schema_version": 1, "files": [ENTRY | change]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize("change", [{"alias_of": []}, {"quant": []}, {"quant": {}}, {"alias_of": None}, {"file": 1}])
def test_manifest_with_values_of_the_wrong_kind_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="manifest.json: .*: expected a text, got"):
        verify(folder_with(tmp_path, **change))


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "a\nb", "\x1b[31m"])
def test_names_that_no_file_can_have_are_faults_in_one_line(name: str, tmp_path: Path) -> None:
    (verdict,) = verify(folder_with(tmp_path, file=name))
    assert verdict.fault is not None and verdict.fault.isprintable() and len(verdict.fault) < 400
    for read in (verify, open_gguf):
        with pytest.raises(StorageError) as caught:
            read(tmp_path / name)
        assert str(caught.value).isprintable()


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="half of a surrogate pair"):
        verify(folder_with(tmp_path, file="\ud800"))


def test_a_message_that_quotes_a_file_is_cut_before_it_is_worked_on() -> None:
    assert one_line("\n" * 10**7) == one_line("\n" * 1000)
    assert len(one_line("x" * 10**7)) == 300


def test_manifest_that_is_a_link_to_itself_is_no_manifest(tmp_path: Path) -> None:
    os.symlink("manifest.json", tmp_path / "manifest.json")
    with pytest.raises(StorageError, match="no manifest.json, no SHA256SUMS and no .gguf file"):
        verify(tmp_path)
