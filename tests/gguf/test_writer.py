"""What the writer makes, the reader takes; what a GGUF file cannot hold is refused before a byte is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf.craft import draft, keys, tensors
from gguf.toy import TINY
from pythia_gguf.gguf.container import Metadata, Value, type_name
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.gguf.writer import KeyBytes, file_bytes, header_bytes, layout

SPECS = (("norm", "F32", (8,)), ("blocks", "Q4_0", (3, 32)), ("last", "F16", (3, 4)))


def test_header_is_the_one_put_together_by_hand() -> None:
    made = draft(keys(), tensors())
    infos = layout(SPECS)
    assert header_bytes(TINY, infos) == made.data[: made.marks["data"]]
    assert file_bytes(TINY, infos) == len(made.data)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment_of_the_metadata_is_the_alignment_of_the_file(alignment: int) -> None:
    metadata = TINY | {"general.alignment": np.uint32(alignment)}
    infos = layout(SPECS, alignment)
    assert all(info.offset % alignment == 0 for info in infos)
    assert len(header_bytes(metadata, infos)) % alignment == file_bytes(metadata, infos) % alignment == 0
    with pytest.raises(ValueError, match="not laid out for the alignment of 32"):
        header_bytes(TINY, layout(SPECS, 128))


def test_headers_that_share_values_are_those_made_alone() -> None:
    """Also where a key has another value in the next header, and where that value is equal but of another type."""
    infos, keys_made = layout(SPECS), KeyBytes()
    for other in (np.uint32(1), np.uint32(2), np.uint64(2), True, "2", np.uint32(1)):
        metadata = TINY | {"general.file_type": other}
        assert header_bytes(metadata, infos, keys_made) == header_bytes(metadata, infos)
        assert file_bytes(metadata, infos, keys_made) == file_bytes(metadata, infos)
    tokens = ["a", "b"]
    assert keys_made.of("tokens", tokens) is keys_made.of("tokens", tokens)


def test_file_without_tensors_is_its_header() -> None:
    assert file_bytes(TINY, ()) == len(header_bytes(TINY, ()))


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        (("n" * 64, "F32", (8,)), "exceeds 63 bytes"),
        (("\u00e9" * 32, "F32", (8,)), "exceeds 63 bytes"),
        (("", "F32", (8,)), "empty tensor name"),
        (("a\n", "F32", (8,)), "control characters"),
        (("norm", "F32", (8,)), "duplicate tensor norm"),
        (("t", "F33", (8,)), "unknown format F33"),
        (("t", "F32", ()), "expected 1 to 4 axes, got 0"),
        (("t", "F32", (1, 1, 1, 1, 8)), "expected 1 to 4 axes, got 5"),
        (("t", "F32", (0, 8)), "axis of 0"),
        (("t", "F32", (8, -1)), "axis of -1"),
        (("t", "Q4_K", (2, 32)), "not a multiple of the 256"),
    ],
)
def test_tensor_that_no_file_can_hold_is_refused(spec: tuple[str, str, tuple[int, ...]], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        layout([("norm", "F32", (8,)), spec])


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("", "x", "empty key"),
        ("General.name", "x", "not a legal key"),
        ("a..b", "x", "not a legal key"),
        ("k" * 65536, "x", "too long"),
        ("a", 1, "has no GGUF type"),
        ("a", 1.5, "has no GGUF type"),
        ("a", None, "has no GGUF type"),
        ("a", b"raw", "has no GGUF type"),
        ("a", ["x", 1], "a list must hold strings"),
        ("a", np.float16(1), "float16"),
        ("a", np.zeros((2, 2), np.float32), "2-axis array"),
        ("a", np.array(1, np.int32), "0-axis array"),
        ("a", np.array(["x"]), "<U1"),
        ("a", "\ud800", "surrogates"),
        ("a", "x" * (16 * 2**20 + 1), "exceeds the limit of 16777216"),
        ("general.alignment", np.int32(32), "expected type u32, got i32"),
        ("general.alignment", np.uint32(48), "power of two"),
    ],
)
def test_key_that_no_file_can_hold_is_refused(key: str, value: Value, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        header_bytes({key: value}, ())


SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    *[st.integers(0, 2**bits - 1).map(np.dtype(f"u{bits // 8}").type) for bits in (8, 16, 32, 64)],
    *[
        st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(np.dtype(f"i{bits // 8}").type)
        for bits in (8, 16, 32, 64)
    ],
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
)
ARRAYS = st.one_of(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
    st.tuples(
        st.binary(max_size=64),
        st.sampled_from(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]),
    ).map(lambda pair: np.frombuffer(pair[0][: len(pair[0]) // 8 * 8], pair[1])),
    st.lists(st.booleans(), max_size=9).map(lambda flags: np.array(flags, np.bool_)),
)
PARTS = st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True)
KEYS = st.lists(PARTS, min_size=1, max_size=4).map(".".join).filter(lambda key: key != "general.alignment")


def identity(value: Value) -> tuple[str, object]:
    """A value as its type and its exact bits, so that NaN equals itself and 0.0 is not -0.0."""
    if isinstance(value, str | bool | list):
        return type_name(value), value
    return type_name(value), value.tobytes()


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(metadata=st.dictionaries(KEYS, st.one_of(SCALARS, ARRAYS), max_size=6))
def test_metadata_comes_back_with_order_types_and_bits(tmp_path: Path, metadata: Metadata) -> None:
    path = tmp_path / "m.gguf"
    header = header_bytes(metadata, ())
    path.write_bytes(header)
    back = open_gguf(path).metadata
    assert list(back) == list(metadata)
    assert [identity(v) for v in back.values()] == [identity(v) for v in metadata.values()]
    assert header_bytes(back, ()) == header


def test_arrays_in_foreign_byte_order_are_written_little_endian(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header_bytes({"a": np.array([1, 2], ">u4")}, ()))
    assert identity(open_gguf(path).metadata["a"]) == identity(np.array([1, 2], "<u4"))
