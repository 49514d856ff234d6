"""A model with other names and another row order needs one entry more in the table and one among the engine's blocks.

The entry computes as GPT-NeoX does, so that the answers are known: the same weights under its names give the same
bytes and the same logits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from press import tiny
from pythia_gguf import load, quantize
from pythia_gguf.arch import ARCHITECTURES, ModelConfig
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.engine.oplist import BLOCKS
from pythia_gguf.errors import ModelFileError
from pythia_gguf.evals.model_files import find_files
from pythia_gguf.export.folder import export
from pythia_gguf.gguf.reader import GGUFFile, open_gguf

WIDTH = 32
QUANTS = ["Q4_0", "Q4_K_M", "Q8_0"]


def as_toy(config: ModelConfig) -> ModelConfig:
    return replace(config, architecture="toy")


def renamed(keys: Mapping[str, object], old: str, new: str) -> dict[str, object]:
    """Keys that begin with one architecture's name, with another's."""
    return {f"{new}.{key.removeprefix(f'{old}.')}" if key.startswith(f"{old}.") else key: v for key, v in keys.items()}


def read_hf_keys(config: Mapping[str, object], path: object) -> tuple[ModelConfig, tuple[str, ...]]:
    read, notes = GPT_NEOX.read_hf_keys({**config, "architectures": [GPT_NEOX.hf_class]}, str(path))
    return as_toy(read), notes


TOY = replace(
    GPT_NEOX,
    name="toy",
    title="Toy",
    families="Toy",
    hf_type="toy_model",
    hf_class="ToyForCausalLM",
    read_hf_keys=read_hf_keys,
    read_gguf_keys=lambda keys, path: as_toy(GPT_NEOX.read_gguf_keys(renamed(keys, "toy", "gptneox"), path)),
    gguf_keys=lambda config: renamed(GPT_NEOX.gguf_keys(config), "gptneox", "toy"),  # type: ignore[arg-type,return-value]
    modules={"token_embd": "toy.wte", "output_norm": "toy.ln_f", "output": "head"},
    layer_modules={role: f"part_{role}" for role in GPT_NEOX.layer_modules},
    layers_prefix="toy.h.",
    body_prefix="toy.",
    other_modules={},
    buffers=(".mask",),
    row_runs=lambda config: {},  # its checkpoints hold q, then k, then v, as a GGUF does
)


@pytest.fixture(autouse=True)
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, TOY.name, TOY)
    monkeypatch.setitem(BLOCKS, TOY.name, BLOCKS[GPT_NEOX.name])


@pytest.fixture
def neox_folder(tmp_path: Path) -> Path:
    """A GPT-NeoX checkpoint of two heads, with weights that differ from row to row."""
    keys = json.dumps(tiny.config(WIDTH) | {"num_attention_heads": 2, "rotary_pct": 4 / WIDTH})
    folder = tiny.write(tmp_path / "tiny", tiny.folder_files(WIDTH) | {"config.json": keys.encode()})
    rng = np.random.default_rng(5)
    weights = {n: rng.normal(0, 0.2, s).astype(np.float16) for n, s in sorted(tiny.hf_shapes(WIDTH).items())}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def toy_folder(neox_folder: Path, tmp_path: Path) -> Path:
    """The same model as a checkpoint of the second architecture."""
    folder = tmp_path / "toy" / "tiny"
    folder.parent.mkdir()
    tiny.write(folder, {p.name: p.read_bytes() for p in neox_folder.iterdir() if p.name != "model.safetensors"})
    keys = json.loads((folder / "config.json").read_text("utf-8"))
    keys |= {"model_type": TOY.hf_type, "architectures": [TOY.hf_class]}
    (folder / "config.json").write_text(json.dumps(keys))
    weights = {}
    for name, values in load_file(neox_folder / "model.safetensors").items():
        gguf = str(GPT_NEOX.gguf_name(name, path="tiny"))
        if "attn_qkv" in gguf:  # heads, parts, rows: here parts come first
            values = values.reshape(2, 3, WIDTH // 2, -1).swapaxes(0, 1).reshape(values.shape)
        weights[TOY.hf_name(gguf, path="toy")] = values
    save_file(weights | {"toy.h.0.mask": np.zeros(3, np.float16)}, folder / "model.safetensors")
    return folder


def tensor_bytes(gguf: GGUFFile) -> dict[str, tuple[str, bytes]]:
    data = gguf.path.read_bytes()[gguf.data_offset :]
    return {name: (t.format, data[t.offset : t.offset + t.n_bytes]) for name, t in gguf.tensors.items()}


def test_conversion_quantization_and_running_find_the_entry(neox_folder: Path, toy_folder: Path, tmp_path: Path):
    made, toys = (
        {f.quant: open_gguf(f.path) for f in quantize(folder, tmp_path / out, quants=QUANTS, keep_f16=True).files}
        for folder, out in ((neox_folder, "neox-GGUF"), (toy_folder, "toy-GGUF"))
    )
    assert made.keys() == toys.keys() == {*QUANTS, "F16"}
    for quant, gguf in made.items():
        assert tensor_bytes(toys[quant]) == tensor_bytes(gguf)
        expected = renamed(gguf.metadata, "gptneox", "toy") | {"general.architecture": "toy"}
        assert repr(list(toys[quant].metadata.items())) == repr(list(expected.items()))
        logits = [load(file.path, threads=1).logits([1, 2, 3]) for file in (gguf, toys[quant])]
        assert logits[0].tobytes() == logits[1].tobytes()


def test_a_gguf_of_it_is_quantized_measured_and_exported(toy_folder: Path, tmp_path: Path):
    (plain,) = quantize(toy_folder, tmp_path / "plain", quants=[], keep_f16=True).files
    again = quantize(plain.path, tmp_path / "again", quants=["Q8_0"]).files[0]
    direct = quantize(toy_folder, tmp_path / "direct", quants=["Q8_0"]).files[0]
    assert tensor_bytes(open_gguf(again.path)) == tensor_bytes(open_gguf(direct.path))
    assert [file.quant for file in find_files([tmp_path / "again"])] == ["Q8_0"]
    export(plain.path, tmp_path / "hf")
    weights, exported = (load_file(folder / "model.safetensors") for folder in (toy_folder, tmp_path / "hf"))
    assert exported.keys() == weights.keys() - {"toy.h.0.mask"}
    for name, values in exported.items():
        assert values.tobytes() == weights[name].tobytes()
    keys = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    assert (keys["model_type"], keys["architectures"]) == (TOY.hf_type, [TOY.hf_class])


def test_messages_name_the_architecture_that_was_found(toy_folder: Path):
    weights = load_file(toy_folder / "model.safetensors")
    weights["toy.h.0.part_ffn_upp.weight"] = weights.pop("toy.h.0.part_ffn_up.weight")
    save_file(weights, toy_folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"no tensor of a Toy model\. Did you mean toy\.h\.0\.part_ffn_up\.weight"):
        quantize(toy_folder, dry_run=True)


def test_what_no_entry_reads_is_told_all_of_the_table(toy_folder: Path):
    keys = json.loads((toy_folder / "config.json").read_text("utf-8"))
    (toy_folder / "config.json").write_text(json.dumps(keys | {"model_type": "llama"}))
    expected = r"expected 'gpt_neox' \(Pythia, GPT-NeoX\) or 'toy_model' \(Toy\), got 'llama'"
    with pytest.raises(ModelFileError, match=expected):
        quantize(toy_folder, dry_run=True)
