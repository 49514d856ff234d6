"""PREFIX.idx and PREFIX.bin: bytes as GPT-NeoX's, every entry checked, damage refused in one line."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.neox import idx_bytes, write_corpus
from pythia_gguf.data import token_file
from pythia_gguf.data.token_file import TokenFile, write_idx
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError

DOCUMENTS = [[5, 6, 7, 0], [], [65535, 0], [1, 2, 3, 4, 5, 0]]
SIZES = [len(d) for d in DOCUMENTS]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", DOCUMENTS)


def test_documents_are_read_back(prefix: Path):
    with TokenFile(prefix) as tokens:
        assert (tokens.n_sequences, tokens.starts, tokens.n_tokens, tokens.dtype) == (4, 5, 12, np.uint16)
        assert tokens.sizes().tolist() == SIZES
        assert [tokens.read(i).tolist() for i in range(4)] == DOCUMENTS
        assert tokens.read(3, 1, 3).tolist() == [2, 3, 4]
        assert tokens.slice(3, 4).tolist() == [0, 65535, 0, 1]
        for i, offset, n in ((4, 0, None), (-1, 0, None), (0, 5, None), (0, 3, 2), (0, -1, 1)):
            with pytest.raises(IndexError):
                tokens.read(i, offset, n)
        with pytest.raises(IndexError):
            tokens.slice(9, 4)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_written_bytes_are_those_of_the_format(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], at_once: int
):
    """Whatever the number of entries that are written at once."""
    path = tmp_path_factory.mktemp("idx") / "x.idx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file, "_ENTRIES", at_once)
        write_idx(path, np.array(sizes, np.int32))
        assert path.read_bytes() == idx_bytes(sizes)
        write_idx(path, np.array(sizes, np.int32), in_order=True)
        assert path.read_bytes() == idx_bytes(sizes, documents=[0])
        path.with_suffix(".bin").write_bytes(bytes(2 * sum(sizes)))
        with TokenFile(path.with_suffix("")) as tokens:
            assert tokens.sizes().tolist() == sizes


def test_all_types_of_ids_but_fractions(tmp_path: Path):
    for code, dtype in token_file.DTYPES.items():
        values = np.array([1, 0, 7], dtype)
        (tmp_path / "x.idx").write_bytes(idx_bytes([1, 2], values.itemsize, code))
        (tmp_path / "x.bin").write_bytes(values.tobytes())
        if code in (6, 7):
            with pytest.raises(ModelFileError, match="no ids of tokens"):
                TokenFile(tmp_path / "x")
        else:
            with TokenFile(tmp_path / "x") as tokens:
                assert tokens.read(1).tolist() == [0, 7]


def patched(at: int, form: str, value: int) -> bytes:
    data = bytearray(idx_bytes(SIZES))
    struct.pack_into(form, data, at, value)
    return bytes(data)


POINTERS, STARTS = 34 + 16, 34 + 48
DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "byte 0: a header has 34 bytes, the file 0"),
    "cut header": (idx_bytes(SIZES)[:33], "a header has 34 bytes, the file 33"),
    "another file": (b"GGUF" + bytes(40), "byte 0: no index of GPT-NeoX"),
    "version": (patched(9, "<Q", 2), "byte 9: expected version 1, got 2"),
    "type": (patched(17, "<B", 9), "byte 17: expected a type of ids from 1 to 8, got 9"),
    "cut": (idx_bytes(SIZES)[:-1], "need 122 bytes, the file has 121"),
    "longer": (idx_bytes(SIZES) + b"x", "need 122 bytes, the file has 123"),
    "2^64-1 sequences": (patched(18, "<Q", 2**64 - 1), "need 221360928884514619454 bytes"),
    "sizes that overflow to fit": (patched(26, "<Q", 2**61 + 5), "need 18446744073709551738 bytes"),
    "no document": (b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 0, 0), "expected 1 to 1 entries of documents, got 0"),
    "negative size": (patched(34 + 4, "<i", -1), "byte 38: sequence 1 has -1 tokens"),
    "size past the end": (patched(34 + 12, "<i", 2**31 - 1), "corpus.bin: expected at least 4294967306 bytes"),
    "pointer past the end": (patched(POINTERS + 8, "<q", 2**40), "sequence 1 begins at byte 1099511627776, expected 8"),
    "negative pointer": (patched(POINTERS, "<q", -2), "byte 50: sequence 0 begins at byte -2, expected 0"),
    "pointers of another size": (patched(POINTERS + 16, "<q", 4), "sequence 2 begins at byte 4, expected 8"),
    "documents from 1": (patched(STARTS, "<q", 1), "the first document begins with sequence 1, expected 0"),
    "documents that go back": (patched(STARTS + 16, "<q", 0), "do not rise from 0 to 4"),
    "documents past the end": (patched(STARTS + 32, "<q", 5), "do not rise from 0 to 4"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_refused_in_one_line(prefix: Path, name: str):
    data, says = DAMAGE[name]
    prefix.with_suffix(".idx").write_bytes(data)
    with pytest.raises(ModelFileError, match=re.escape(says)) as e:
        TokenFile(prefix)
    assert str(e.value).startswith(f"{prefix}.") and str(e.value).isprintable()


@pytest.mark.parametrize(("n_bytes", "says"), [(23, "expected at least 24 bytes as"), (26, "expected 24 bytes as")])
def test_tokens_must_be_as_many_as_the_index_says(prefix: Path, n_bytes: int, says: str):
    path = prefix.with_suffix(".bin")
    path.write_bytes((path.read_bytes() + b"xx")[:n_bytes])
    with pytest.raises(ModelFileError, match=f"corpus.bin: {says} the index says, got {n_bytes}"):
        TokenFile(prefix)


def test_missing_files_and_folders(tmp_path: Path, prefix: Path):
    prefix.with_suffix(".bin").unlink()
    with pytest.raises(StorageError, match="corpus.bin: cannot open"):
        TokenFile(prefix)
    with pytest.raises(StorageError, match="none.idx: cannot open"):
        TokenFile(tmp_path / "none")


def mutants(folder: Path, n: int, seed: int) -> int:
    """Damage both files `n` times in all ways that there are; how many were refused. Nothing but a refusal may come."""
    rng = random.Random(seed)
    prefix = write_corpus(folder / "m", DOCUMENTS)
    whole = {suffix: prefix.with_suffix(suffix).read_bytes() for suffix in (".idx", ".bin")}
    refused = []
    for _ in range(n):
        suffix = rng.choice([".idx"] * 9 + [".bin"])
        data = bytearray(whole[suffix])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(max(1, len(data)))
            how = rng.randrange(5)
            if how == 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            elif how == 1:
                data[at : at + 8] = struct.pack("<q", rng.choice([-1, 0, 1, 2**31, 2**62, -(2**63), 2**63 - 1]))
            elif how == 2:
                del data[at:]
            elif how == 3:
                data[at:at] = bytes(rng.randrange(9))
            else:
                data[at : at + 8], data[:8] = data[:8], data[at : at + 8]
        prefix.with_suffix(suffix).write_bytes(data)
        try:
            with TokenFile(prefix) as tokens:
                read = [tokens.read(i) for i in range(tokens.n_sequences)]
                assert sum(map(len, read)) == tokens.n_tokens
        except PythiaGGUFError as e:
            refused.append(str(e))
        prefix.with_suffix(suffix).write_bytes(whole[suffix])
    assert all(message.isprintable() and len(message) < 1000 for message in refused)
    return len(refused)


def test_a_thousand_mutants(tmp_path: Path):
    assert 700 < mutants(tmp_path, 1000, 1) < 1000


@pytest.mark.campaign
def test_a_hundred_thousand_mutants(tmp_path: Path):
    assert 70_000 < mutants(tmp_path, 100_000, 2) < 100_000
