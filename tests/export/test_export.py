"""GGUF back to Hugging Face: transformers loads it, the bits are those of the source, ids are equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from engine.nano import HELDOUT, nano_files
from pythia_gguf import load, quantize, to_transformers
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.export.folder import export
from pythia_gguf.gguf.reader import decode_tensor, open_gguf

NANO = Path(__file__).parents[2] / "examples" / "nano"


@pytest.fixture(scope="module")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unquantized file of the sample model."""
    out = tmp_path_factory.mktemp("f16")
    result = quantize(NANO, out, quants=[], keep_f16=True)
    return result.files[0].path


def test_f16_there_and_back_has_the_same_bits(f16: Path, tmp_path: Path):
    export(f16, tmp_path / "hf")
    original, again = load_file(NANO / "model.safetensors"), load_file(tmp_path / "hf" / "model.safetensors")
    assert original.keys() == again.keys()
    for name, values in original.items():
        assert values.dtype == again[name].dtype == np.float16
        assert np.array_equal(values.view(np.uint16), again[name].view(np.uint16)), name
    wanted, made = (json.loads((f / "config.json").read_text("utf-8")) for f in (NANO, tmp_path / "hf"))
    for key in ("vocab_size", "hidden_size", "num_attention_heads", "use_parallel_residual", "hidden_act"):
        assert made[key] == wanted[key], key


@pytest.mark.parametrize("quant", ["F16", "Q4_K_M"])
def test_transformers_runs_it_as_the_dequantized_weights(quant: str, f16: Path, tmp_path: Path):
    path = f16 if quant == "F16" else nano_files()[quant]
    export(path, tmp_path / "hf", dtype="float32")
    model, tokenizer = (
        GPTNeoXForCausalLM.from_pretrained(tmp_path / "hf"),
        AutoTokenizer.from_pretrained(tmp_path / "hf"),
    )
    original = AutoTokenizer.from_pretrained(NANO)
    text = HELDOUT.read_text("utf-8")[:3000] + "\u00e9 e\u0301   \t\n" + "\U0001f600" * 3 + "<|endoftext|>"
    ids = tokenizer(text).input_ids
    assert ids == original(text).input_ids
    in_memory = to_transformers(path, dtype="float32")
    with torch.no_grad():
        logits = model(torch.tensor([ids[:64]])).logits
        assert torch.equal(in_memory(torch.tensor([ids[:64]])).logits, logits)
        exact = model.double()(torch.tensor([ids[:64]])).logits[0].numpy()
    ours = load(path, activations="float32", gelu="erf", cache="f32").logits(ids[:64])
    error = np.abs(ours - exact).max() / exact.std()
    # What our float32 sums lose; transformers runs in float64. Rows of QKV in another order are off by whole standard
    # deviations.
    assert error < 1e-4


def test_rows_that_only_pad_are_kept(f16: Path, tmp_path: Path):
    export(f16, tmp_path / "hf")
    gguf = open_gguf(f16)
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    assert weights["gpt_neox.embed_in.weight"].shape[0] == gguf.tensors["token_embd.weight"].shape[0]


def test_bfloat16_rounds_to_nearest_even(f16: Path, tmp_path: Path):
    export(f16, tmp_path / "hf", dtype="bfloat16")
    import safetensors.torch

    made = safetensors.torch.load_file(tmp_path / "hf" / "model.safetensors")["embed_out.weight"]
    wanted = torch.from_numpy(decode_tensor(open_gguf(f16), "output.weight")).to(torch.bfloat16)
    assert torch.equal(made, wanted)


def test_what_cannot_be_is_one_line(f16: Path, tmp_path: Path):
    export(f16, tmp_path / "hf")
    with pytest.raises(UsageError, match="a model already"):
        export(f16, tmp_path / "hf")
    with pytest.raises(UsageError, match="no dtype 'float8'"):
        export(f16, tmp_path / "other", dtype="float8")
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelFileError):
        export(tmp_path / "no.gguf", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("manifest", "config", "expected"),
    [
        (None, None, "gelu"),
        ("gelu_fast", None, "gelu_fast"),
        ("gelu_new", "gelu", "gelu_new"),
        (None, "gelu_pytorch_tanh", "gelu_pytorch_tanh"),
        ("relu", "gelu_python", "gelu_python"),
    ],
)
def test_the_activation_is_what_stands_beside_the_file(
    manifest: str | None, config: str | None, expected: str, pythia, tmp_path: Path
):
    """In the command, in Python and in memory; the form that somebody asks for takes a name that is there already."""
    path = tmp_path / "m.gguf"
    path.write_bytes(nano_files()["Q4_0"].read_bytes())
    for name, act in (("manifest.json", manifest), ("config.json", config)):
        if act is not None:
            (tmp_path / name).write_text(json.dumps({"hidden_act": act}))
    gelu = "erf" if expected in ("gelu", "gelu_python") else "tanh"
    assert load(path).gelu == gelu
    other = {"erf": ("tanh", "gelu_new"), "tanh": ("erf", "gelu")}[gelu]
    for i, (options, act) in enumerate(
        [((), expected), (("--gelu", "auto"), expected), (("--gelu", gelu), expected), (("--gelu", other[0]), other[1])]
    ):
        code, _, err = pythia("export", path, "--to", tmp_path / str(i), *options)
        assert code == 0, err
        assert json.loads((tmp_path / str(i) / "config.json").read_text("utf-8"))["hidden_act"] == act
    export(path, tmp_path / "python")
    assert json.loads((tmp_path / "python" / "config.json").read_text("utf-8"))["hidden_act"] == expected
    assert to_transformers(path).config.hidden_act == expected
    assert to_transformers(path, hidden_act="gelu_new").config.hidden_act == "gelu_new"


def test_an_activation_that_is_no_gelu_is_refused(f16: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="hidden_act must be one of gelu, .*, got 'gelu_neu'. Did you mean gelu_new"):
        export(f16, tmp_path / "hf", hidden_act="gelu_neu")
    with pytest.raises(UsageError, match="hidden_act must be one of"):
        to_transformers(f16, hidden_act="relu")
    assert not (tmp_path / "hf").exists()
