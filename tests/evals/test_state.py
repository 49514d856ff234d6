"""What is left of a run that was killed: used as it is, or not at all, and never an error."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.nano import nano_files
from pythia_gguf.evals.state import read_state, save_state, text_ids
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.tokenizer import TextTokenizer

KEPT = {"a": np.arange(12, dtype=np.float64).reshape(2, 2, 3), "b": np.array([np.nan, 1.5])}


def arrays(state: Path, key: str = "key") -> tuple[dict[str, np.ndarray], list[str]]:
    told: list[str] = []
    return read_state(state, key, told.append), told


def npz(**content: object) -> bytes:
    out = io.BytesIO()
    np.savez(out, **content)  # type: ignore[arg-type]
    return out.getvalue()


def pickled() -> bytes:
    """An archive whose arrays are pickles, as an older numpy would have run them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        header = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }"
        archive.writestr("key.npy", header.ljust(127) + b"\n" + pickle.dumps(print))
    return out.getvalue()


def huge() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        header = (
            b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,), }"
        )
        archive.writestr("key.npy", header)
    return out.getvalue()


def test_what_was_saved_is_read_again(tmp_path: Path):
    state = tmp_path / "state"
    save_state(state, "key", KEPT)
    kept, told = arrays(state)
    assert (kept.keys(), told) == (KEPT.keys(), [])
    assert all(np.array_equal(kept[name], KEPT[name], equal_nan=True) for name in KEPT)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"PK broken",
        lambda data: data[: len(data) // 4],
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) * 3 // 4],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"state 1", b"state 2"),
        lambda data: npz(key=np.array("key"), names=np.array(["a"]), rows_0=KEPT["a"]),
        lambda data: npz(key=np.array(np.nan), names=np.array([])),
        lambda data: npz(key=np.array([object()])),
        lambda data: pickled(),
        lambda data: huge(),
    ],
)
def test_damage_of_any_kind_is_a_fresh_start_and_a_line(tmp_path: Path, damage: Callable[[bytes], bytes]):
    state = tmp_path / "state"
    save_state(state, "key", KEPT)
    state.write_bytes(damage(state.read_bytes()))
    kept, told = arrays(state)
    assert kept == {}
    (line,) = told
    assert line.startswith(f"{state}: ") and line.endswith("starting afresh")


def test_a_thousand_mutants_are_never_believed(tmp_path: Path):
    state, numbers = tmp_path / "state", random.Random(14)
    save_state(state, "key", KEPT)
    whole = state.read_bytes()
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(numbers.randint(1, 8)):
            data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        if bytes(data) != whole:
            state.write_bytes(data)
            kept, told = arrays(state)
            assert (kept, len(told)) == ({}, 1)


def test_a_state_of_something_else_and_a_folder_in_its_place_are_fresh_starts(tmp_path: Path):
    state = tmp_path / "state"
    save_state(state, "key", KEPT)
    kept, (line,) = arrays(state, "another")
    assert kept == {}
    assert "of something else" in line
    (tmp_path / "folder").mkdir()
    assert arrays(tmp_path / "folder") == ({}, [])
    assert arrays(tmp_path / "nothing") == ({}, [])


def test_each_window_begins_with_the_begin_token_where_the_model_wants_it():
    """As llama-perplexity and llama-imatrix do it: that token is put before the text, and in place of the first of each
    window.
    """
    path = nano_files()["Q8_0"]
    keys = dict(open_gguf(path).metadata)
    plain = TextTokenizer(keys, path)
    text = "import os\nimport sys\n\n\ndef main(argv):\n    return os.path.join(*argv)\n"
    ids = plain.encode(text)
    assert text_ids(plain, text, 8) == ids
    flags = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": np.uint32(1)}
    wanted = [1, *ids]
    wanted[::8] = [1] * len(wanted[::8])
    for more in ({}, {"tokenizer.ggml.add_eos_token": True}):
        begun = TextTokenizer(keys | flags | more, path)
        assert begun.encode(text) == [1, *ids, *([0] if more else [])]
        assert text_ids(begun, text, 8) == wanted
