"""Files of torch.save as training code writes them give the files of the same weights saved plainly.

Oracle: the weights that transformers loads of the same folder, and of float64 their float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file
from transformers import GPTNeoXForCausalLM

from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf import decode_tensor, open_gguf, quantize
from pythia_gguf.errors import ModelFileError

Tensors = dict[str, torch.Tensor]
TEXTS = {name: data for name, data in tiny.folder_files(32).items() if name != "model.safetensors"}
UP = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
NORM = "gpt_neox.final_layer_norm.weight"


def weights() -> Tensors:
    """The smallest model that can be quantized, with values that differ."""
    generator = torch.Generator().manual_seed(4)
    made = load(tiny.folder_files(32)["model.safetensors"])
    return {name: torch.randn(made[name].shape, generator=generator).half() for name in sorted(made)}


def gapped(tensor: torch.Tensor) -> torch.Tensor:
    """Equal values, every second of a larger storage."""
    return torch.stack([tensor, torch.full_like(tensor, 7)], dim=-1)[..., 0]


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T.contiguous().T if tensor.ndim == 2 else gapped(tensor)


def one_storage(tensors: Tensors) -> Tensors:
    flat = torch.cat([t.flatten() for t in tensors.values()])
    parts = flat.split([t.numel() for t in tensors.values()])
    return {name: part.view(t.shape) for part, (name, t) in zip(parts, tensors.items(), strict=True)}


BUFFERS = {
    "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(),
    "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
    "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.rand(4, dtype=torch.float64)[::2],
    "gpt_neox.rotary_emb.inv_freq": torch.arange(3),
}
STRANGERS = {
    "v_head.summary.weight": torch.ones(1, 32),
    "gpt_neox.layers.0.attention.rotary_emb.cos_cached": torch.ones(4, 2, dtype=torch.complex64),
    "gpt_neox.layers.1.input_layernorm.weight": torch.ones(32),
    "n_steps": torch.tensor(3),
    "codes": torch.ones(4, dtype=torch.uint16),
}
ENTRIES = {"step": 3, "loss": 0.5, "note": None, "args": {"lr": 1e-3, "betas": (0.9, 0.95)}, "history": [1, 2]}
SAVED: dict[str, tuple[Callable[[Tensors], dict[str, object]], dict[str, object]]] = {
    "transposed": (lambda t: {n: transposed(v) for n, v in t.items()}, {}),
    "gapped": (lambda t: {n: gapped(v) for n, v in t.items()}, {}),
    "views of one storage": (one_storage, {}),
    "float64": (lambda t: {n: v.double() for n, v in t.items()}, {}),
    "float64, transposed": (lambda t: {n: transposed(v.double()) for n, v in t.items()}, {}),
    "float32, gapped": (lambda t: {n: gapped(v.float()) for n, v in t.items()}, {}),
    "parameters": (lambda t: {n: torch.nn.Parameter(v) for n, v in t.items()}, {}),
    "buffers": (lambda t: BUFFERS | t, {}),
    "strangers": (lambda t: t | STRANGERS, {}),
    "entries": (lambda t: t | ENTRIES, {}),
    "protocol 3": (lambda t: dict(t), {"pickle_protocol": 3}),
    "protocol 4": (lambda t: t | ENTRIES, {"pickle_protocol": 4}),
    "protocol 5": (lambda t: {n: transposed(v) for n, v in t.items()} | ENTRIES, {"pickle_protocol": 5}),
}
# transformers reads only what torch.load(weights_only=True) takes.
NOT_LOADED = ("protocol 4", "protocol 5")


def press(folder: str | Path, out: Path) -> tuple[list[str], tuple[str, ...], Path]:
    result = quantize(folder, out, quants="Q4_0,Q8_0", keep_f16=True, name="tiny")
    return [f.sha256 for f in result.files], result.notes, result.files[-1].path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Hashes of the files of the weights saved by torch.save as they are."""
    home = tmp_path_factory.mktemp("plain")
    folder = tiny.write(home / "hf", TEXTS)
    torch.save(weights(), folder / "pytorch_model.bin")
    return press(folder, home / "out")[0]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", SAVED)
def test_every_way_to_save_gives_the_files_of_the_plain_weights(kind: str, plain: list[str], tmp_path: Path):
    change, options = SAVED[kind]
    folder = tiny.write(tmp_path / "hf", TEXTS)
    torch.save(change(weights()), folder / "pytorch_model.bin", **options)
    files, notes, _ = press(folder, tmp_path / "out")
    assert files == plain
    said = " ".join(notes)
    assert ("5 tensors that the model does not have (v_head.summary.weight" in said) == (kind == "strangers")
    assert ("step (a number)" in said) == (kind in ("entries", "protocol 4", "protocol 5"))
    if kind not in NOT_LOADED:
        theirs = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for name, values in weights().items():
            assert torch.equal(theirs[name.replace("embed_out", "lm_head")], values.float())


@pytest.mark.parametrize("is_safe", [True, False], ids=["safetensors", "bin"])
def test_float64_is_rounded_as_the_converter_rounds_it(is_safe: bool, tmp_path: Path):
    """Through float32, and matrices then to float16: both steps to nearest even."""
    generator = torch.Generator().manual_seed(5)
    tensors = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in weights().items()}
    # Between two halves, a little above: once rounded it is the tie, and then even.
    tensors[UP][0, 0] = 1 + 2**-11 + 2**-40
    folder = tiny.write(tmp_path / "hf", TEXTS)
    if is_safe:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    _, _, path = press(folder, tmp_path / "out")
    gguf = open_gguf(path)
    assert decode_tensor(gguf, "blk.0.ffn_up.weight")[0, 0] == 1.0
    for hf, ours in ((UP, "blk.0.ffn_up.weight"), (NORM, "output_norm.weight")):
        rounded = tensors[hf].float().half().float() if tensors[hf].ndim == 2 else tensors[hf].float()
        assert np.array_equal(decode_tensor(gguf, ours), rounded.numpy())


def test_float64_is_read_from_the_hub(hub: LoopbackHub, plain: list[str], tmp_path: Path):
    folder = tiny.write(tmp_path / "hf", TEXTS)
    save_file({n: v.double() for n, v in weights().items()}, folder / "model.safetensors", metadata={"format": "pt"})
    local, _, _ = press(folder, tmp_path / "local")
    hub.add("me/double", folder)
    files, notes, _ = press("me/double", tmp_path / "out")
    assert [note for note in notes if "read from the Hub" in note]
    assert files[:2] == local[:2] == plain[:2]


def refusal(tensors: dict[str, object], tmp_path: Path) -> str:
    folder = tiny.write(tmp_path / "hf", TEXTS)
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ModelFileError) as caught:
        quantize(folder, tmp_path / "out")
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {"state_dict": t, "step": 3}, "lie under 'state_dict'. Save them alone: torch.save("),
        (lambda t: t | {NORM: None}, "tensor output_norm.weight: tensor is missing"),
        (lambda t: t | {NORM: t[NORM].long()}, "type I64 is not supported: expected F16, BF16, F32 or F64"),
        (lambda t: t | {UP: t[UP].to(torch.float8_e4m3fn)}, "type F8_E4M3 is not supported"),
        (lambda t: {n: v for n, v in t.items() if n != NORM} | STRANGERS, "of a head that writes no text"),
        (lambda t: t | {"gpt_neox.layers.0.mlp.dense_h_to_4h.lora_A.weight": t[UP]}, "merge_and_unload"),
        (lambda t: t | {UP: t[UP].double() * 1e300}, "is not finite"),
        (lambda t: t | {UP: torch.zeros(1).expand(10**6, 32)}, "tensors overlap"),
    ],
)
def test_what_is_not_read_is_refused_with_the_way_out(
    change: Callable[[Tensors], dict[str, object]], said: str, tmp_path: Path
):
    assert said in refusal(change(weights()), tmp_path)
