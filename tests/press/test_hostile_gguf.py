"""A sound container with an impossible model in it is refused before a weight is read; odd keys are copied unread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from press import tiny
from press.hostile_gguf import ACCEPTED, CASES, Case
from pythia_gguf.errors import ModelFileError
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.press.quantize import quantize
from pythia_gguf.press.source import open_source


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_impossible_model_is_refused_in_one_line(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny.gguf_bytes(keys=case.keys, shapes=case.shapes))
    open_gguf(path)  # the container is sound
    with pytest.raises(ModelFileError) as caught:
        quantize(path, tmp_path / "out", dry_run=True)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 900
    assert case.says in message
    assert caught.value.exit_code == 65


def test_corpus_keeps_its_size_and_its_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 95
    checklist = {case.name[:3] for case in CASES} | {name[:3] for name in ACCEPTED}
    assert checklist >= {f"S{i:02}" for i in range(1, 22)} | {f"J{i:02}" for i in range(1, 6)}
    # V17, a token that is no UTF-8, is refused by the container: tests/gguf/hostile_keys.py.
    assert checklist >= {f"V{i:02}" for i in range(1, 21) if i != 17}


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_odd_keys_that_llama_cpp_takes_are_copied_as_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny.gguf_bytes(keys=ACCEPTED[name]))
    kept = open_source(path, "model").metadata
    for key, value in ACCEPTED[name].items():
        assert key not in kept if value is ... else np.array_equal(np.asarray(kept[key]), np.asarray(value)), key


def test_the_first_missing_tensor_is_named_every_time(tmp_path: Path) -> None:
    """In the order of the file, not in that of a set, which changes from run to run."""
    path = tmp_path / "model.gguf"
    path.write_bytes(
        tiny.gguf_bytes(shapes={"output.weight": ..., "blk.0.ffn_up.bias": ..., "blk.0.ffn_up.weight": ...})
    )
    with pytest.raises(ModelFileError, match=r"tensor output\.weight: tensor is missing"):
        open_source(path, "model")


def test_quantized_source_is_refused_by_its_format(tmp_path: Path) -> None:
    source, out = tmp_path / "model.gguf", tmp_path / "out"
    source.write_bytes(tiny.gguf_bytes(width=32))
    made = quantize(source, out, quants="Q8_0", threads=1).files[0].path
    with pytest.raises(ModelFileError, match="is already quantized \\(Q8_0\\)"):
        open_source(made, "model")
