"""No file, however damaged, gets more from the readers than one line that names the file and the rule."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from checkpoint import craft_safetensors, hostile_pickle, hostile_zip
from checkpoint.case import Case, check_message, check_refused
from checkpoint.craft_zip import Item
from pythia_gguf.checkpoint import iter_file_checked, open_checkpoint
from pythia_gguf.checkpoint.safetensors import MAX_HEADER_BYTES
from pythia_gguf.errors import ModelFileError, StorageError
from pythia_gguf.files import RegularFile


def says(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", craft_safetensors.CASES, ids=says)
def test_hostile_safetensors_is_refused_with_its_rule(case: Case, tmp_path: Path) -> None:
    check_refused(case, tmp_path / "model.safetensors")


@pytest.mark.parametrize("case", hostile_zip.CASES, ids=says)
def test_hostile_zip_is_refused_with_its_rule(case: Case, tmp_path: Path) -> None:
    check_refused(case, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("case", hostile_pickle.CASES, ids=says)
def test_hostile_pickle_is_refused_with_its_rule(case: Case, tmp_path: Path) -> None:
    inside = Case(case.name, hostile_zip.with_pickle(case.data), case.says)
    check_refused(inside, tmp_path / "pytorch_model.bin")


def test_corpora_keep_their_size_and_names_are_unique() -> None:
    for cases, least in ((craft_safetensors.CASES, 100), (hostile_zip.CASES, 90), (hostile_pickle.CASES, 150)):
        assert len({case.name for case in cases}) == len(cases) >= least


def test_more_tensors_than_the_limit_are_refused(tmp_path: Path) -> None:
    data = hostile_zip.with_pickle(hostile_pickle.many_tensors(65_537))
    check_refused(Case("", data, "more than 65536 tensors"), tmp_path / "pytorch_model.bin")


def test_pickle_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    data = hostile_zip.with_pickle(bytes((16 << 20) + 1))
    check_refused(Case("", data, "expected at most 16777216 bytes, got 16777217"), tmp_path / "pytorch_model.bin")


def aliased(n_aliases: int) -> bytes:
    n_items = 5000
    found = hostile_zip.items()
    found[0] = Item(name="m/data.pkl", data=hostile_pickle.many_aliases(n_aliases, n_items))
    found[2] = Item(name="m/data/0", data=bytes(4 * n_items))
    return hostile_zip.build_zip(found)


def test_aliases_may_double_a_file_but_not_more(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(aliased(2))
    tied = open_checkpoint(tmp_path).tensors
    assert tied["a0"].offset == tied["a1"].offset
    check_refused(Case("", aliased(3), "tensors overlap: 60000 bytes of tensors in a file of"), path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_every_cut_of_a_file_is_refused(name: str, tmp_path: Path) -> None:
    data = craft_safetensors.GOOD if name.endswith(".safetensors") else hostile_zip.good_zip()
    path = tmp_path / name
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(ModelFileError):
            open_checkpoint(tmp_path)


def test_one_flipped_bit_anywhere_is_refused_when_the_file_is_streamed(tmp_path: Path) -> None:
    # 64 of the 24 bytes' 192 bits would do; all are cheap. torch.load takes every one of them as a weight.
    data = hostile_zip.good_zip()
    start = data.index(hostile_zip.STORAGE)
    path = tmp_path / "pytorch_model.bin"
    for bit in range(8 * len(hostile_zip.STORAGE)):
        damaged = bytearray(data)
        damaged[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert list(open_checkpoint(tmp_path).tensors) == ["a"]
        with pytest.raises(ModelFileError) as caught:
            list(iter_file_checked(path))
        check_message(caught.value, path, "record m/data/0: expected CRC-32")


def test_streaming_yields_every_byte_in_order(tmp_path: Path) -> None:
    for name, data in (
        ("pytorch_model.bin", hostile_zip.good_zip()),
        ("model.safetensors", craft_safetensors.GOOD),
        ("empty", b""),
        # Larger than one chunk of 4 MiB, and not a multiple of it.
        ("large.bin", hostile_zip.with_storage(data=bytes(range(256)) * 20_000 + b"end")),
    ):
        (tmp_path / name).write_bytes(data)
        assert b"".join(bytes(chunk) for chunk in iter_file_checked(tmp_path / name)) == data


def test_streaming_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        list(iter_file_checked(tmp_path / "none.bin"))
    check_message(caught.value, tmp_path / "none.bin", "cannot open")


def peak_bytes(folder: Path) -> int:
    """Most memory held at once while a folder is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            open_checkpoint(folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


FLOOD_BYTES = 1 << 16
SMALL_CASES = {
    "model.safetensors": [c for c in craft_safetensors.CASES if len(c.data) < 4096],
    "pytorch_model.bin": [
        *(c for c in hostile_zip.CASES if len(c.data) < 4096),
        *(Case(c.name, hostile_zip.with_pickle(c.data), c.says) for c in hostile_pickle.CASES if len(c.data) < 4096),
    ],
}


@pytest.mark.parametrize("name", list(SMALL_CASES))
def test_small_files_with_huge_claims_take_little_memory(name: str, tmp_path: Path) -> None:
    for case in SMALL_CASES[name]:
        (tmp_path / name).write_bytes(case.data)
        # A few KB are ours; the first refusal of an opcode also imports pickletools.
        assert peak_bytes(tmp_path) < 2 << 20, case.name


def test_zip_bomb_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(hostile_zip.bomb(1 << 30))
    assert (tmp_path / "pytorch_model.bin").stat().st_size < 2 << 20
    assert peak_bytes(tmp_path) < 1 << 20


@pytest.mark.parametrize(
    "filler", [b"}", b"(t", b")\x85", b"(", b"K\x01", b"}q\x00", b"N", b"]", b"G12345678", b"C\x00"]
)
def test_flood_of_one_opcode_takes_little_memory(filler: bytes, tmp_path: Path) -> None:
    check_flood(b"\x80\x02", filler, tmp_path)


@pytest.mark.parametrize("filler", [b"\x94", b"\x8c\x00\x94", b"]\x94a", b"\x8f(\x90"])
def test_flood_of_what_later_protocols_have_takes_little_memory(filler: bytes, tmp_path: Path) -> None:
    check_flood(b"\x80\x04N]", filler, tmp_path)


def check_flood(start: bytes, filler: bytes, tmp_path: Path) -> None:
    pickle = start + filler * (FLOOD_BYTES // len(filler)) + b"."
    (tmp_path / "pytorch_model.bin").write_bytes(hostile_zip.with_pickle(pickle))
    # The worst is a flood of dicts: 144 bytes for each, one for every 8 bytes of pickle, and the stack.
    assert peak_bytes(tmp_path) < 24 * FLOOD_BYTES


@pytest.mark.parametrize(
    "filler", ["[", "{", '"', '\\"', "0", "1,", " ", '{"a":', "\\", '"a":[],', "[[]],", '{"":{}},']
)
def test_flood_of_one_json_token_takes_memory_in_proportion(filler: str, tmp_path: Path) -> None:
    text = filler * (FLOOD_BYTES // len(filler))
    for before in ('{"', '{"a":{"shape":[', '{"__metadata__":{"', "{"):
        (tmp_path / "model.safetensors").write_bytes(craft_safetensors.file_of(before + text))
        # The worst is lists of lists: two objects of 56 and 88 bytes for five. So the largest header takes 160 MB.
        assert peak_bytes(tmp_path) < 40 * FLOOD_BYTES


def test_the_largest_header_of_the_worst_kind_is_refused_in_little_time(tmp_path: Path) -> None:
    start, filler, end = '{"a":{"shape":[', "[[]],", "0]}}"
    n = (MAX_HEADER_BYTES - len(start) - len(end)) // len(filler)
    started = time.process_time()
    case = Case("", craft_safetensors.file_of(start + filler * n + end), "a lacks dtype, data_offsets")
    check_refused(case, tmp_path / "model.safetensors")
    # A second on one core; ten leave room for a busy machine.
    assert time.process_time() - started < 10


def test_readers_close_what_they_refuse(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(hostile_zip.CASES[0].data)
    for _ in range(2000):  # more than the usual limit of 1024 open files
        with pytest.raises(ModelFileError):
            open_checkpoint(tmp_path)
    with RegularFile(path) as file:
        assert file.size == 0
