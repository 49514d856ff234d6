"""The same model in every shape a Hugging Face folder comes in gives the same files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import GPTNeoXForCausalLM

from pythia_gguf import decode_tensor, open_gguf, quantize

pytestmark = pytest.mark.slow

NANO = Path("examples/nano")  # saved by transformers 4.57.6
TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
QUANTS = "Q4_K_M,Q8_0"


@pytest.fixture(scope="module")
def model() -> GPTNeoXForCausalLM:
    """The sample as transformers 5 loads it, float16 kept."""
    return GPTNeoXForCausalLM.from_pretrained(NANO, dtype=torch.float16)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return press(NANO, tmp_path_factory.mktemp("reference"))


def press(folder: Path, out: Path, name: str = "nano") -> dict[str, bytes]:
    result = quantize(folder, out, quants=QUANTS, name=name)
    return {f.quant: f.path.read_bytes() for f in result.files}


def texts_into(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in TEXTS:
        shutil.copy(NANO / name, folder)
    return folder


def test_transformers_5_spelling_of_the_config(model, reference, tmp_path: Path):
    """rotary_pct has moved into rope_parameters there; llama.cpp's converter stops with a KeyError."""
    model.save_pretrained(tmp_path / "five")
    config = (tmp_path / "five" / "config.json").read_text()
    assert "rope_parameters" in config
    assert '"rotary_pct"' not in config
    for name in TEXTS[1:]:
        shutil.copy(NANO / name, tmp_path / "five")
    assert press(tmp_path / "five", tmp_path / "out") == reference


def test_sharded_safetensors(model, reference, tmp_path: Path):
    model.save_pretrained(tmp_path / "shards", max_shard_size="3MB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 3
    assert press(texts_into(tmp_path / "shards"), tmp_path / "out") == reference


def test_pytorch_model_bin_of_transformers_5(model, reference, tmp_path: Path):
    """In memory transformers 5 calls the output matrix lm_head."""
    folder = texts_into(tmp_path / "bin")
    assert "lm_head.weight" in model.state_dict()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert press(folder, tmp_path / "out") == reference


def test_sharded_bin_with_the_buffers_of_old_checkpoints(model, reference, tmp_path: Path):
    import json

    folder = texts_into(tmp_path / "bins")
    tensors = {n.replace("lm_head", "embed_out"): t for n, t in model.state_dict().items()}
    for i in range(6):
        at = f"gpt_neox.layers.{i}.attention."
        tensors[at + "bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
        tensors[at + "masked_bias"] = torch.tensor(-torch.inf)
        tensors[at + "rotary_emb.inv_freq"] = torch.ones(8)
    names = list(tensors)
    weight_map = {}
    for i, part in enumerate((names[:40], names[40:])):
        file = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save({n: tensors[n] for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert press(folder, tmp_path / "out") == reference


def test_float32_is_rounded_to_float16_before_it_is_quantized(model, reference, tmp_path: Path):
    """Values a hair beside halves: rounded first they give the reference, encoded as they are they would not."""
    folder = texts_into(tmp_path / "f32")
    tensors = {n: (t.float() * (1 + 2**-13) if t.ndim == 2 else t.float()) for n, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    assert press(folder, tmp_path / "out") == reference


def test_bfloat16_keeps_its_format(model, tmp_path: Path):
    """The unquantized file is BF16, and quantized files come from these values, not from float16 ones."""
    folder = texts_into(tmp_path / "bf16")
    tensors = {n: t.to(torch.bfloat16) for n, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    result = quantize(folder, tmp_path / "out", quants="Q8_0", keep_f16=True, name="nano")
    plain = open_gguf(result.files[-1].path)
    assert plain.path.name == "nano.BF16.gguf"
    assert {t.format for t in plain.tensors.values()} == {"F32", "BF16"}
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    assert np.array_equal(decode_tensor(plain, "blk.1.ffn_up.weight"), tensors[name].float().numpy())


def test_name_in_a_hub_cache_is_the_repositorys(tmp_path: Path):
    """models--ORG--NAME/snapshots/COMMIT holds links into blobs/; files are called NAME, never the commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--EleutherAI--pythia-70m-deduped" / "snapshots" / commit
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in sorted(NANO.iterdir()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blobs / digest)
        (snapshot / file.name).symlink_to(Path("../../blobs") / digest)
    (tmp_path / "mine").symlink_to(snapshot)
    result = quantize(tmp_path / "mine", tmp_path / "out", quants="Q8_0")
    assert result.files[0].path.name == "pythia-70m-deduped.Q8_0.gguf"
    assert open_gguf(result.files[0].path).metadata["general.name"] == "Pythia 70m Deduped"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "EleutherAI/pythia-70m-deduped" in card
    assert commit in card
