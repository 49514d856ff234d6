"""A model encoded in memory is, byte for byte, the file that `quantize` writes, and runs to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from engine.nano import NANO, nano_files
from press import tiny
from press.menus import MENUS, matrix_of, menu_of, toy_source
from pythia_gguf import PressResult, encode_model, load, machine, quantize
from pythia_gguf.errors import ModelFileError, NotFiniteError, UsageError
from pythia_gguf.gguf.container import Metadata, TensorInfo
from pythia_gguf.gguf.fingerprint import vectors_of
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.tensor_source import MemoryGGUF, TensorSource
from pythia_gguf.plan.quants import QUANTS

IDS = list(range(3, 30))


@pytest.fixture(scope="module", params=MENUS, ids=str)
def both(request: pytest.FixtureRequest) -> tuple[PressResult, dict[str, MemoryGGUF]]:
    """A folder of files, and the same in memory."""
    mix, is_weighted = request.param
    encoded = encode_model(toy_source(), "all", mix=mix, imatrix=matrix_of(is_weighted), keep_f16=True)
    return menu_of(mix, is_weighted), encoded


def test_bytes_are_those_of_the_file(both: tuple[PressResult, dict[str, MemoryGGUF]]):
    made, encoded = both
    assert list(encoded) == [*QUANTS, "F16"] == [file.quant for file in made.files]
    for file in made.files:
        ours = encoded[file.quant]
        assert b"".join(ours.pieces()) == file.path.read_bytes(), file.quant
        assert (ours.n_bytes, ours.sha256()) == (file.n_bytes, file.sha256)


def test_it_is_read_as_the_file_is(both: tuple[PressResult, dict[str, MemoryGGUF]]):
    made, encoded = both
    file = next(file for file in made.files if file.quant == "Q4_K_M")
    gguf, ours = open_gguf(file.path), encoded["Q4_K_M"]
    assert isinstance(ours, TensorSource) and isinstance(gguf, TensorSource)
    assert str(ours.metadata) == str(gguf.metadata)
    assert (list(ours.tensors.items()), ours.formats) == (list(gguf.tensors.items()), gguf.formats)
    assert (ours.data_offset, ours.name) == (gguf.data_offset, file.path.name)
    assert vectors_of(ours) == vectors_of(gguf)
    for name in gguf.tensors:
        assert decode_tensor(ours, name).tobytes() == decode_tensor(gguf, name).tobytes()
    name = "blk.0.ffn_up.weight"
    assert ours.rows(name, 3, 7).tobytes() == gguf.rows(name, 3, 7).tobytes()
    for source in (ours, gguf):
        with pytest.raises(ValueError, match=r"rows 3 to 257 of blk\.0\.ffn_up\.weight, which has 256"):
            source.rows(name, 3, 257)
        with pytest.raises(ModelFileError, match=r"Q4_K_M.gguf: no tensor blk.0.ffn_op.weight. Did you mean"):
            source.rows("blk.0.ffn_op.weight")


def test_quants_share_what_they_have_in_common(both: tuple[PressResult, dict[str, MemoryGGUF]]):
    """So their memory is that of distinct tensors, and nobody may write to it."""
    _, encoded = both
    for name, format_name in encoded["Q4_K_M"].formats.items():
        for other in encoded.values():
            is_same = other.formats[name] == format_name
            assert np.shares_memory(other.data[name], encoded["Q4_K_M"].data[name]) == is_same
    with pytest.raises(ValueError, match="read-only"):
        encoded["Q8_0"].rows("output.weight")[0, 0] = 1


@pytest.mark.slow
def test_logits_are_those_of_the_file():
    files = nano_files()
    encoded = encode_model(NANO, "all", keep_f16=True)
    assert files.keys() == {name for name in encoded if name not in QUANTS or QUANTS[name].alias_of is None}
    for quant, path in files.items():
        theirs, ours = load(path, threads=1), load(encoded[quant], threads=1)
        assert ours.logits(IDS).tobytes() == theirs.logits(IDS).tobytes(), quant
    assert (ours.facts, ours.notes, ours.n_parameters) == (theirs.facts, theirs.notes, theirs.n_parameters)
    written = [model.generate("def main(", max_tokens=8, temperature=0).text for model in (ours, theirs)]
    assert written[0] == written[1] != ""


def test_what_a_manifest_says_is_known_without_one(tmp_path: Path):
    """The activation, and special tokens that no key names; the same as beside the written files."""
    changed = {"hidden_act": "gelu_new", "eos_token_id": 5}
    files = tiny.folder_files(width=32)
    config = tiny.json.dumps(tiny.config(32) | changed).encode()
    generation = tiny.json.dumps({"eos_token_id": [5, 7]}).encode()
    folder = tiny.write(tmp_path / "m", files | {"config.json": config, "generation_config.json": generation})
    made = load(quantize(folder, tmp_path / "out", quants="Q8_0").files[0].path)
    ours = load(encode_model(folder, "Q8_0")["Q8_0"])
    assert ours.gelu == made.gelu == "tanh"
    assert ours.tokenizer.special == made.tokenizer.special
    assert ours.tokenizer.special.named_ends == {0, 5, 7}
    assert ours.facts == made.facts and ours.facts["special_tokens"]
    assert ours.logits([1, 2, 3]).tobytes() == made.logits([1, 2, 3]).tobytes()
    assert load(encode_model(folder, "Q8_0")["Q8_0"], gelu="erf").logits([1]).tobytes() != made.logits([1]).tobytes()


@dataclass(frozen=True)
class Bare:
    """Only what the protocol names, over any other source."""

    of: TensorSource
    asked: list[str]
    name = "weights of mine"
    data_offset = 0
    n_bytes = 0

    @property
    def beside(self) -> Mapping[str, object]:
        return {}

    @property
    def metadata(self) -> Metadata:
        return self.of.metadata

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.of.tensors

    @property
    def formats(self) -> Mapping[str, str]:
        return self.of.formats

    def sha256(self) -> str:
        self.asked.append("sha256")
        return "none"

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.of.rows(name, start, stop)


def test_the_engine_asks_for_no_more_than_the_protocol():
    path = nano_files()["Q4_0"]
    asked: list[str] = []
    model = load(Bare(open_gguf(path), asked), threads=1)
    assert model.logits(IDS).tobytes() == load(path, threads=1).logits(IDS).tobytes()
    assert not asked  # a hash takes a second for each gigabyte
    assert model.facts["file"] == "weights of mine"
    with pytest.raises(UsageError, match="^revision changes nothing for a model in memory"):
        load(Bare(open_gguf(path), asked), revision="main")


def test_faults_name_what_the_source_calls_itself(tmp_path: Path):
    (gguf,) = encode_model(tiny.write(tmp_path / "m", tiny.folder_files(width=32)), "Q8_0").values()
    name = "blk.0.ffn_up.weight"
    damaged = gguf.data[name].copy()
    damaged[2, :2] = (0, 0x7C)  # the first scale of a row: infinity
    with pytest.raises(
        NotFiniteError, match=r"^m\.Q8_0\.gguf: byte \d+: tensor blk\.0\.ffn_up\.weight: the scale"
    ) as e:
        load(replace(gguf, data={**gguf.data, name: damaged}))
    assert e.value.offset == gguf.data_offset + gguf.tensors[name].offset + 2 * 34
    fewer = {name: info for name, info in gguf.tensors.items() if name != "output_norm.bias"}
    with pytest.raises(ModelFileError, match=r"^m\.Q8_0\.gguf: .*output_norm\.bias"):
        load(replace(gguf, tensors=fewer))
    with pytest.raises(ModelFileError, match=r"^m\.Q8_0\.gguf: .*general\.architecture"):
        load(replace(gguf, metadata=gguf.metadata | {"general.architecture": "llama"}))


def test_what_does_not_fit_into_memory_is_said_before_a_weight_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_NO_QUESTION_BYTES", 0)
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 1_000_000)
    says = r"^toy encoded in memory needs .* MB of memory, 1\.0 MB are free\. Fewer quants need less$"
    with pytest.raises(UsageError, match=says):
        encode_model(toy_source(), "all")
