"""Checkpoints of GPT-NeoX itself, in one part and in two, give the files of the Hugging Face folder they belong to."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pythia_gguf import decode_tensor, open_gguf, quantize
from pythia_gguf.errors import ModelFileError, PythiaGGUFError

NANO = Path(__file__).parents[2] / "examples" / "nano"
COLUMN_PARALLEL = ("query_key_value", "dense_h_to_4h", "embed_in", "embed_out")


def parts_of(name: str, tensor: torch.Tensor, n: int) -> list[torch.Tensor]:
    """A tensor as n ranks hold it: rows, columns, addends, or copies that differ a little around their mean."""
    if n == 1:
        return [tensor]
    if any(part in name for part in COLUMN_PARALLEL):
        return [t.clone() for t in tensor.chunk(n, dim=0)]
    if name.endswith(("attention.dense.weight", "mlp.dense_4h_to_h.weight")):
        return [t.clone() for t in tensor.chunk(n, dim=1)]
    if "layernorm" in name or "layer_norm" in name:
        return [tensor.clone() for _ in range(n)]
    # Addends whose sum is exact in float16.
    return [tensor.clone(), *(torch.zeros_like(tensor) for _ in range(n - 1))]


def write_neox(
    folder: Path,
    n_parts: int,
    step: int = 1000,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
) -> Path:
    """The sample as GPT-NeoX writes it, with its config and tokenizer beside."""
    target = folder / f"global_step{step}"
    target.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "README.md"):
        shutil.copy(NANO / name, folder / name)
    shutil.copy(NANO / "generation_config.json", folder / "generation_config.json")
    weights = load_file(NANO / "model.safetensors")
    n_layers = 1 + max(int(n.split(".")[2]) for n in weights if ".layers." in n)
    files: dict[int, dict[str, str]] = {0: {"word_embeddings.weight": "gpt_neox.embed_in.weight"}}
    for i in range(n_layers):
        prefix = f"gpt_neox.layers.{i}."
        files[i + 2] = {n.removeprefix(prefix): n for n in weights if n.startswith(prefix)}
    files[n_layers + 3] = {f"norm.{k}": f"gpt_neox.final_layer_norm.{k}" for k in ("weight", "bias")}
    files[n_layers + 4] = {"final_linear.weight": "embed_out.weight"}
    for layer, names in files.items():
        split = {inner: parts_of(name, weights[name], n_parts) for inner, name in names.items()}
        for part in range(n_parts):
            state = OrderedDict((inner, change(tensors[part])) for inner, tensors in split.items())
            if 2 <= layer < n_layers + 2:
                state["attention.rotary_emb.inv_freq"] = torch.ones(4)
            torch.save(state, target / f"layer_{layer:02}-model_{part:02}-model_states.pt")
    torch.save({"step": step}, target / "mp_rank_00_model_states.pt")
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Hashes of what the Hugging Face folder gives."""
    out = tmp_path_factory.mktemp("hf")
    return {f.quant: f.sha256 for f in quantize(NANO, out, quants="Q4_K_M,Q8_0", keep_f16=True).files}


@pytest.mark.parametrize("n_parts", [1, 2, 4])
def test_parts_give_the_same_files_as_the_folder(n_parts: int, expected: dict[str, str | None], tmp_path: Path):
    source = write_neox(tmp_path / "nano", n_parts)
    result = quantize(source, tmp_path / "out", quants="Q4_K_M,Q8_0", keep_f16=True)
    assert {f.quant: f.sha256 for f in result.files} == expected


@pytest.mark.parametrize("n_parts", [1, 2])
@pytest.mark.parametrize(
    "change",
    [lambda t: torch.stack([t, t + 1], dim=-1)[..., 0], lambda t: t.T.contiguous().T if t.ndim == 2 else t.double()],
    ids=["gapped", "transposed and float64"],
)
def test_parts_may_be_views(change, n_parts: int, expected: dict[str, str | None], tmp_path: Path):
    source = write_neox(tmp_path / "nano", n_parts, change=change)
    assert not change(torch.ones(4, 3)).is_contiguous()
    assert quantize(source, tmp_path / "out", quants="Q8_0").files[0].sha256 == expected["Q8_0"]


def test_tied_embeddings_have_no_last_file(tmp_path: Path):
    """`no-weight-tying: false`: the module is saved once, as layer_00; there is no file after the norm's."""
    source = write_neox(tmp_path / "nano", 2)
    for path in (source / "global_step1000").glob("layer_10-*"):
        path.unlink()
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    result = quantize(source, tmp_path / "out", quants="Q8_0", keep_f16=True)
    plain = open_gguf(result.files[-1].path)
    matrices = [decode_tensor(plain, name) for name in ("token_embd.weight", "output.weight")]
    assert np.array_equal(*matrices)
    assert np.array_equal(
        matrices[0], load_file(NANO / "model.safetensors")["gpt_neox.embed_in.weight"].float().numpy()
    )
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="tie_word_embeddings"):
        quantize(source, dry_run=True)


def test_biases_are_added_and_norms_averaged_in_half_precision(tmp_path: Path):
    from pythia_gguf.checkpoint.neox import neox_folder, open_neox

    source = write_neox(tmp_path / "nano", 3 - 1)
    for name, value in (("attention.dense.bias", 0.1), ("input_layernorm.weight", 1.3)):
        states = []
        for part in range(2):
            path = source / "global_step1000" / f"layer_02-model_{part:02}-model_states.pt"
            state = torch.load(path)
            generator = torch.Generator().manual_seed(part)
            state[name] = (torch.randn(state[name].shape, generator=generator) + value).half()
            torch.save(state, path)
            states.append(state[name])
        wanted = sum(states) / (2 if "norm" in name else 1)
        folder = neox_folder(source)
        assert folder
        opened = open_neox(folder)
        tensor = opened.tensors[f"gpt_neox.layers.0.{name}"]
        file = opened.elsewhere[tensor.path].open()
        made = torch.frombuffer(file.read(0, tensor.n_bytes), dtype=torch.float16)
        assert torch.equal(made, wanted)
        # The nearest wrong rules: one part alone, and sum and mean taken for each other.
        assert not torch.equal(made, states[0])
        assert not torch.equal(made, sum(states) / (1 if "norm" in name else 2))


def test_the_last_step_of_several_is_taken(expected: dict[str, str | None], tmp_path: Path):
    source = write_neox(tmp_path / "nano", 1, step=2000)
    (source / "global_step500").mkdir()
    assert quantize(source, tmp_path / "out", quants="Q8_0").files[0].sha256 == expected["Q8_0"]


@pytest.mark.parametrize("damage", ["layer", "part", "tensor", "shape", "config"])
def test_what_is_missing_is_named(damage: str, tmp_path: Path):
    source = write_neox(tmp_path / "nano", 2)
    folder = source / "global_step1000"
    path = folder / "layer_03-model_01-model_states.pt"
    said = ""
    if damage == "layer":
        for file in folder.glob("layer_03-*"):
            file.unlink()
        said = "layer_03 is missing"
    elif damage == "part":
        path.unlink()
        said = "layer_03 has parts"
    elif damage == "config":
        (source / "config.json").unlink()
        said = "Put the model's config.json"
    else:
        state = torch.load(path)
        bias = state.pop("attention.dense.bias")
        if damage == "shape":
            state["attention.dense.bias"] = bias[:-1].clone()
        torch.save(state, path)
        said = "is missing" if damage == "tensor" else "in the first part"
    with pytest.raises(PythiaGGUFError, match=said) as e:
        quantize(source, tmp_path / "out", quants="Q8_0")
    assert damage in ("layer", "part", "config") or isinstance(e.value, ModelFileError)
