"""A GGUF with an impossible model in it is refused at load, in one line, before a kernel sees a byte of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.nano import nano_files
from press import tiny
from press.hostile_gguf import CASES, Case
from pythia_gguf import load
from pythia_gguf.errors import ModelFileError, NotFiniteError, PythiaGGUFError, UsageError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_impossible_model_is_refused_at_load(case: Case, tmp_path: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny.gguf_bytes(keys=case.keys, shapes=case.shapes))
    with pytest.raises(ModelFileError) as caught:
        load(path, threads=1)
    message = str(caught.value)
    assert case.says in message
    assert message.startswith(f"{path}: ") and message.isprintable()


def test_bytes_that_change_after_the_header_never_crash(tmp_path: Path):
    """Files with random bytes in their weights: logits that are numbers come out, or a line that says where not."""
    whole = bytearray(nano_files()["Q4_K_M"].read_bytes())
    rng = np.random.default_rng(5)
    path = tmp_path / "mutant.gguf"
    seen = set()
    for n_bytes in (5, 20, 100, 500, 20_000) * 4:
        data = np.frombuffer(bytes(whole), np.uint8).copy()
        at = rng.integers(400_000, data.size, n_bytes)
        data[at] = rng.integers(0, 256, at.size)
        path.write_bytes(data.tobytes())
        try:
            logits = load(path, threads=2).logits([1, 2, 3])
            assert logits.shape == (3, 4096)
            assert np.isfinite(logits).all()
            seen.add("logits")
        except NotFiniteError as e:
            seen.add("weight" if str(e).startswith(f"{path}: byte ") else "computed")
    assert {"logits", "weight"} <= seen


def test_file_cut_short_while_it_waits(tmp_path: Path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(nano_files()["Q8_0"].read_bytes()[:-1000])
    with pytest.raises(PythiaGGUFError, match=r"cut\.gguf"):
        load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gelu": "tan"}, r"gelu must be one of auto, erf, tanh, got 'tan'\. Did you mean tanh"),
        ({"activations": "int4"}, "activations must be one of int8, float32, bf16x3, got 'int4'"),
        ({"cache": "f8"}, "cache must be one of auto, f16, f32, got 'f8'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_unknown_options_are_refused_by_name(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        load(nano_files()["Q8_0"], **options)


def test_gelu_is_what_the_folder_says(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(nano_files()["Q8_0"].read_bytes())
    assert load(path).gelu == "erf"
    (tmp_path / "config.json").write_text('{"hidden_act": "gelu_new"}')
    assert load(path).gelu == "tanh"
    (tmp_path / "manifest.json").write_text('{"hidden_act": "gelu"}')  # of the press itself: it comes first
    assert load(path).gelu == "erf"
    for odd in ("[]", '{"hidden_act": 3}', '{"hidden_act": "relu"}'):
        (tmp_path / "manifest.json").write_text(odd)
        assert load(path).gelu == "tanh"
    for damaged in (b"{", b"\xff", b""):  # to take the other GELU in silence would change every number
        (tmp_path / "manifest.json").write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"should tell which GELU m.gguf has.* say gelu='erf' or tanh"):
            load(path)
    assert load(path, gelu="erf").gelu == "erf"
    (tmp_path / "manifest.json").unlink()
    os.mkfifo(tmp_path / "manifest.json")  # opening it would wait for ever
    assert load(path).gelu == "tanh"
