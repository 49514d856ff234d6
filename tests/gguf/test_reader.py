"""The reader takes every legal file, odd ones too, and gives back what stands in it."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gguf.craft import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    Draft,
    Key,
    Tensor,
    array,
    draft,
    keys,
    string,
    tensors,
    u32,
    valid,
)  # fmt: skip
from pythia_gguf.errors import ModelFileError, StorageError
from pythia_gguf.gguf.container import TensorInfo
from pythia_gguf.gguf.reader import GGUFFile, decode_tensor, open_gguf


def opened(path: Path, made: Draft | bytes) -> GGUFFile:
    path.write_bytes(made if isinstance(made, bytes) else made.data)
    return open_gguf(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def test_valid_file_is_read_as_it_was_put_together(path: Path) -> None:
    made = valid()
    gguf = opened(path, made)
    assert (gguf.path, gguf.version, gguf.alignment) == (path, 3, 32)
    assert (gguf.n_bytes, gguf.data_offset) == (len(made.data), made.marks["data"])
    assert list(gguf.metadata) == [key.name.decode() for key in keys()]
    assert gguf.metadata["general.name"] == "tiny"
    assert gguf.metadata["tiny.words"] == ["one", "two"]
    assert list(gguf.tensors.values()) == [
        TensorInfo(name="norm", format="F32", shape=(8,), offset=0, n_bytes=32),
        TensorInfo(name="blocks", format="Q4_0", shape=(3, 32), offset=32, n_bytes=54),
        TensorInfo(name="last", format="F16", shape=(3, 4), offset=96, n_bytes=24),
    ]


@pytest.mark.parametrize(
    ("type_id", "code", "dtype", "number"),
    [
        (U8, "<B", np.uint8, 255), (I8, "<b", np.int8, -128), (U16, "<H", np.uint16, 65535),
        (I16, "<h", np.int16, -32768), (U32, "<I", np.uint32, 2**32 - 1), (I32, "<i", np.int32, -(2**31)),
        (F32, "<f", np.float32, 0.5), (U64, "<Q", np.uint64, 2**64 - 1), (I64, "<q", np.int64, -(2**63)),
        (F64, "<d", np.float64, 0.1),
    ],
)  # fmt: skip
def test_python_type_of_a_number_is_its_gguf_type(
    path: Path, type_id: int, code: str, dtype: type[np.generic], number: float
) -> None:
    one = struct.pack(code, number)
    made = [Key(name=b"one", type_id=type_id, payload=one)]
    made += [Key(name=b"many", type_id=ARRAY, payload=array(type_id, 3, 3 * one))]
    metadata = opened(path, draft(made, [])).metadata
    assert type(metadata["one"]) is dtype and metadata["one"] == number
    many = metadata["many"]
    assert isinstance(many, np.ndarray) and many.dtype == dtype and many.tolist() == [number] * 3
    with pytest.raises(ValueError, match="read-only"):
        many[0] = 0


def test_bool_and_text_are_python_values(path: Path) -> None:
    text = "caf\u00e9 \u4e16 \U0001f600 \0 \n"
    made = [Key(name=b"yes", type_id=BOOL, payload=b"\1"), Key(name=b"no", type_id=BOOL, payload=b"\0")]
    made += [Key(name=b"text", type_id=STRING, payload=string(text.encode()))]
    made += [Key(name=b"bools", type_id=ARRAY, payload=array(BOOL, 2, b"\0\1"))]
    metadata = opened(path, draft(made, [])).metadata
    assert metadata["yes"] is True and metadata["no"] is False and metadata["text"] == text
    bools = metadata["bools"]
    assert isinstance(bools, np.ndarray) and bools.dtype == np.bool_ and bools.tolist() == [False, True]


def test_empty_strings_and_arrays_are_legal(path: Path) -> None:
    made = [Key(name=b"text", type_id=STRING, payload=string(b""))]
    made += [Key(name=b"words", type_id=ARRAY, payload=array(STRING, 0, b""))]
    made += [Key(name=b"flags", type_id=ARRAY, payload=array(BOOL, 0, b""))]
    made += [Key(name=b"doubles", type_id=ARRAY, payload=array(F64, 0, b""))]
    metadata = opened(path, draft(made, [])).metadata
    assert (metadata["text"], metadata["words"]) == ("", [])
    assert [len(metadata[name]) for name in ("flags", "doubles")] == [0, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("alignment", [8, 16, 64, 4096, 65536])
def test_other_alignments_move_the_data(path: Path, alignment: int) -> None:
    key = Key(name=b"general.alignment", type_id=U32, payload=u32(alignment))
    gguf = opened(path, draft([*keys(), key], tensors(), alignment=alignment))
    assert gguf.alignment == alignment and gguf.data_offset % alignment == 0
    # The last tensor is the third: its bytes count up from 2.
    assert gguf.rows("last").reshape(-1).tolist() == list(range(2, 26))


@pytest.mark.parametrize("data", [True, False])
def test_file_without_tensors_may_end_without_padding(path: Path, data: bool) -> None:
    gguf = opened(path, draft(keys(), [], data=data))
    assert not gguf.tensors and len(gguf.metadata) == len(keys())


def test_smallest_file_has_24_bytes(path: Path) -> None:
    gguf = opened(path, draft([], [], data=False))
    assert (gguf.n_bytes, gguf.metadata, gguf.tensors) == (24, {}, {})


def test_version_2_reads_like_version_3(path: Path) -> None:
    assert opened(path, draft(keys(), tensors(), version=2)).version == 2


@pytest.mark.parametrize(
    "name", [b"k" * 65535, b"command-r.block_count", b"0.1", b"_", b"tokenizer.chat_template.tool_use"]
)
def test_legal_keys_are_taken(path: Path, name: bytes) -> None:
    assert name.decode() in opened(path, draft([Key(name=name, type_id=U8, payload=b"\1")], [])).metadata


@pytest.mark.parametrize("name", ["n" * 63, "../../etc/passwd", "blk.0.ffn_up.weight.in_sum2", "\u4e16 [red]"])
def test_legal_tensor_names_are_taken_as_names_and_nothing_else(path: Path, name: str) -> None:
    one = Tensor(name=name.encode(), dims=(2,), format_id=0, n_bytes=8)
    assert list(opened(path, draft([], [one])).tensors) == [name]


def test_axes_are_reversed_and_up_to_four(path: Path) -> None:
    made = Tensor(name=b"t", dims=(32, 5, 3, 2), format_id=8, n_bytes=34 * 30)
    info = opened(path, draft([], [made])).tensors["t"]
    assert (info.shape, info.n_rows, info.row_bytes, info.n_weights) == ((2, 3, 5, 32), 30, 34, 960)


def test_trailing_bytes_are_taken_on_request_only(path: Path) -> None:
    made = valid()
    path.write_bytes(made.data + b"more")
    with pytest.raises(ModelFileError, match="4 bytes follow the last tensor"):
        open_gguf(path)
    gguf = open_gguf(path, allow_trailing=True)
    assert gguf.rows("last").reshape(-1).tolist() == list(range(2, 26))


def test_header_longer_than_one_read_is_whole(path: Path) -> None:
    """The reader takes 256 KiB at first: text, words, numbers and tensors all lie across later borders."""
    words = [("w" * (i % 700)).encode() for i in range(3000)]
    big = [Key(name=b"text", type_id=STRING, payload=string(b"t" * 300_000))]
    big += [Key(name=b"words", type_id=ARRAY, payload=array(STRING, 3000, b"".join(map(string, words))))]
    numbers = np.arange(200_000, dtype="<u4")
    big += [Key(name=b"numbers", type_id=ARRAY, payload=array(U32, 200_000, numbers.tobytes()))]
    many = [Tensor(name=f"t{i}".encode(), dims=(8,), format_id=0, n_bytes=32) for i in range(40_000)]
    gguf = opened(path, draft(big, many))
    assert gguf.metadata["text"] == "t" * 300_000
    assert gguf.metadata["words"] == [w.decode() for w in words]
    assert np.array_equal(gguf.metadata["numbers"], numbers)  # type: ignore[arg-type]
    assert len(gguf.tensors) == 40_000 and gguf.tensors["t39999"].offset == 39_999 * 32


def test_rows_are_the_bytes_of_the_file(path: Path) -> None:
    made = valid()
    gguf = opened(path, made)
    data = np.frombuffer(made.data, np.uint8)[made.marks["data 1"] :][:54].reshape(3, 18)
    assert np.array_equal(gguf.rows("blocks"), data)
    assert np.array_equal(gguf.rows("blocks", 1), data[1:])
    assert np.array_equal(gguf.rows("blocks", 1, 2), data[1:2])
    rows = gguf.rows("blocks", 2)
    assert rows.dtype == np.uint8 and rows.flags.c_contiguous and rows.flags.writeable
    assert gguf.rows("norm").shape == (1, 32)


def test_threads_read_slabs_of_one_file_at_the_same_time(path: Path) -> None:
    one = Tensor(name=b"t", dims=(64, 4096), format_id=0, n_bytes=256 * 4096)
    made = draft([], [one])
    gguf = opened(path, made)
    with ThreadPoolExecutor(8) as pool:
        slabs = list(pool.map(lambda i: gguf.rows("t", i, i + 64), range(0, 4096, 64)))
    assert np.concatenate(slabs).tobytes() == bytes(made.data[made.marks["data 0"] :])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 0), (2, 1), (0, 4), (3, None)])
def test_rows_that_do_not_exist_are_our_own_mistake(path: Path, start: int, stop: int | None) -> None:
    gguf = opened(path, valid())
    with pytest.raises(ValueError, match=r"blocks, which has 3"):
        gguf.rows("blocks", start, stop)


def test_missing_tensor_is_answered_with_the_nearest_name(path: Path) -> None:
    gguf = opened(path, valid())
    for function in (GGUFFile.rows, decode_tensor):
        with pytest.raises(ModelFileError, match=r"no tensor block\. Did you mean blocks\?"):
            function(gguf, "block")


def test_file_that_changed_after_opening_is_noticed(path: Path) -> None:
    gguf = opened(path, valid())
    os.truncate(path, gguf.n_bytes - 1)
    with pytest.raises(ModelFileError, match=f"file changed: had {gguf.n_bytes} bytes, now {gguf.n_bytes - 1}"):
        gguf.rows("norm")
    path.unlink()
    with pytest.raises(StorageError, match="cannot open"):
        gguf.rows("norm")


def test_decoding_follows_the_format(path: Path) -> None:
    made = valid()
    gguf = opened(path, made)
    halves = np.frombuffer(made.data, "<f2")[made.marks["data 2"] // 2 :][:12].reshape(3, 4)
    assert np.array_equal(decode_tensor(gguf, "last"), halves.astype(np.float32))
    # Q4_0 by hand: byte 0..1 the scale d, then 16 bytes; low nibbles first: weight = d * (q - 8).
    block = made.data[made.marks["data 1"] :][:18]
    d = np.frombuffer(block[:2], "<f2")[0].astype(np.float32)
    codes = [b & 15 for b in block[2:]] + [b >> 4 for b in block[2:]]
    assert decode_tensor(gguf, "blocks").shape == (3, 32)
    assert decode_tensor(gguf, "blocks")[0].tolist() == [d * (q - 8) for q in codes]


def test_decoding_in_slabs_gives_the_same_weights(path: Path) -> None:
    """1.5 million weights: more than the slab of about a million that is decoded at once."""
    n_rows = 3000
    weights = np.arange(n_rows * 512, dtype="<f4")
    file = draft([], [Tensor(name=b"t", dims=(512, n_rows), format_id=0, n_bytes=weights.nbytes)], data=False)
    head = bytes(file.data) + bytes(-len(file.data) % 32)
    gguf = opened(path, head + weights.tobytes())
    assert np.array_equal(decode_tensor(gguf, "t"), weights.reshape(n_rows, 512))
