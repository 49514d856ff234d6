"""No file, however damaged, gets more from the reader than one line that names byte, field and rule."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from gguf.case import Case
from gguf.craft import ARRAY, STRING, U8, Key, array, draft, u64, valid
from gguf.hostile_keys import key_cases
from gguf.hostile_tensors import tensor_cases
from pythia_gguf.errors import ModelFileError, StorageError
from pythia_gguf.gguf import cursor
from pythia_gguf.gguf.reader import open_gguf

CASES = [*key_cases(), *tensor_cases()]


def refusal_of(path: Path) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        open_gguf(path)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_file_is_refused_with_byte_field_and_rule(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(case.data)
    error = refusal_of(path)
    message = str(error)
    assert (error.offset, error.exit_code) == (case.offset, 65)
    assert message.isprintable() and len(message) < 900
    assert message.startswith(f"{path}: byte {case.offset}: ")
    assert case.field in message
    assert case.rule in message


def test_corpus_keeps_its_size_and_its_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 350


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    data = bytes(valid().data)
    path = tmp_path / "cut.gguf"
    for n in range(len(data)):
        path.write_bytes(data[:n])
        assert refusal_of(path).offset <= n


def test_small_files_with_huge_claims_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "claims.gguf"
    small = [case for case in CASES if len(case.data) < 4096]
    assert len(small) > 200
    for case in small:
        path.write_bytes(case.data)
        tracemalloc.start()
        refusal_of(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The file itself, an exception and its message; the smallest false claim would be 64 KiB of keys.
        assert peak < 64 << 10, case.name


def test_string_beyond_its_limit_is_refused_unread(tmp_path: Path) -> None:
    key = Key(name=b"a", type_id=STRING, payload=u64(2**24 + 1))
    path = tmp_path / "long.gguf"
    path.write_bytes(draft([key], [], data=False).data)
    os.truncate(path, 2**25)
    assert "string length 16777217 exceeds the limit of 16777216" in str(refusal_of(path))


def test_header_beyond_its_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 1 MiB instead of 256, so that the test need not fill the memory."""
    monkeypatch.setattr(cursor, "HEADER_BYTES_MAX", 2**20)
    many = [Key(name=f"k{i}".encode(), type_id=ARRAY, payload=array(U8, 2**18, bytes(2**18))) for i in range(5)]
    path = tmp_path / "big.gguf"
    path.write_bytes(draft(many[:3], []).data)
    assert len(open_gguf(path).metadata) == 3
    path.write_bytes(draft(many, []).data)
    assert "k3: header is larger than the limit of 1048576 bytes" in str(refusal_of(path))


def test_error_is_one_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "a\u202eb.gguf"
    path.write_bytes(b"no")
    assert str(refusal_of(path)).isprintable()


def test_folder_is_refused(tmp_path: Path) -> None:
    # Windows refuses to open one, other systems open it and let us see.
    with pytest.raises((ModelFileError, StorageError), match="not a regular file|cannot open"):
        open_gguf(tmp_path)
