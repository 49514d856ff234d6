"""Tied embeddings: a GGUF holds the matrix twice, and is what it would be of a checkpoint that has it twice.

Oracle: transformers' logits of the same folder, and the files of the same weights written out in full.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXForCausalLM

from hub.loopback import LoopbackHub
from pythia_gguf import load, open_gguf, quantize
from pythia_gguf.errors import ModelFileError

NANO = Path(__file__).parents[2] / "examples" / "nano"
IN, OUT = "gpt_neox.embed_in.weight", "embed_out.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return load_file(NANO / "model.safetensors")


def folder_of(folder: Path, *, is_tied: bool, tensors: Tensors | None = None) -> Path:
    """The sample's texts, and weights if there are any."""
    folder.mkdir()
    for path in NANO.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": is_tied}
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def press(source: str | Path, out: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files, and what was said; of the unquantized one, whose tensors are in the order of the source, tensor by
    tensor.
    """
    result = quantize(source, out, quants="Q4_0,Q8_0", keep_f16=True, name="nano")
    files = {f.quant: f.path.read_bytes() for f in result.files}
    data, plain = files.pop("F16"), open_gguf(result.files[-1].path)
    files |= {
        t.name: data[plain.data_offset + t.offset : plain.data_offset + t.offset + t.n_bytes]
        for t in plain.tensors.values()
    }
    return files, result.notes


@pytest.fixture(scope="module")
def in_full(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the same weights with the matrix written twice and nothing tied."""
    home = tmp_path_factory.mktemp("full")
    both = tensors | {OUT: tensors[IN].clone()}
    return press(folder_of(home / "hf", is_tied=False, tensors=both), home / "out")[0]


def as_transformers_5_saves_it(folder: Path, tensors: Tensors) -> None:
    model = GPTNeoXForCausalLM.from_pretrained(NANO, dtype=torch.float16)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    assert OUT not in load_file(folder / "model.safetensors")


def without_output(folder: Path, tensors: Tensors) -> None:
    save_file({n: t for n, t in tensors.items() if n != OUT}, folder / "model.safetensors", metadata={"format": "pt"})


def without_embeddings(folder: Path, tensors: Tensors) -> None:
    """What safetensors' own save_model leaves of two names of one storage: the first of them."""
    kept = {n: t for n, t in tensors.items() if n != IN} | {OUT: tensors[IN]}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def one_storage(folder: Path, tensors: Tensors) -> None:
    torch.save(tensors | {OUT: tensors[IN]}, folder / "pytorch_model.bin")


def in_shards(folder: Path, tensors: Tensors) -> None:
    kept = [(n, t) for n, t in tensors.items() if n != OUT]
    parts = {"model-00001-of-00002.safetensors": kept[:9], "model-00002-of-00002.safetensors": kept[9:]}
    for name, part in parts.items():
        save_file(dict(part), folder / name)
    weight_map = {n: name for name, part in parts.items() for n, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    "save",
    [as_transformers_5_saves_it, without_output, without_embeddings, one_storage, in_shards],
    ids=lambda f: f.__name__,
)
def test_every_way_to_tie_gives_the_files_written_in_full(
    save: Callable[[Path, Tensors], None], tensors: Tensors, in_full: dict[str, bytes], tmp_path: Path
):
    folder = folder_of(tmp_path / "hf", is_tied=True)
    save(folder, tensors)
    files, notes = press(folder, tmp_path / "out")
    assert files == in_full
    copies = json.loads((tmp_path / "out" / "manifest.json").read_text())["source"].get("copies")
    if save is one_storage:  # the checkpoint holds both names itself
        assert (notes, copies) == ((), None)
    else:
        copy, original = ("token_embd", "output") if save is without_embeddings else ("output", "token_embd")
        assert copies == {f"{copy}.weight": f"{original}.weight"}
        assert [n for n in notes if f"{copy}.weight is a copy of {original}.weight" in n]


def test_logits_are_those_of_transformers(tensors: Tensors, tmp_path: Path):
    folder = folder_of(tmp_path / "hf", is_tied=True)
    without_output(folder, tensors)
    press(folder, tmp_path / "out")
    ids = list(range(100, 148))
    ours = load(tmp_path / "out" / "nano.F16.gguf", cache="f32").logits(ids)
    with torch.no_grad():
        theirs = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float64)(torch.tensor([ids])).logits[0].numpy()
        untied = GPTNeoXForCausalLM.from_pretrained(NANO, dtype=torch.float64)(torch.tensor([ids])).logits[0].numpy()
    # float32 against float64; the nearest wrong matrix, the one of the sample, is a thousand times further away.
    assert np.abs(ours - theirs).max() / theirs.std() < 1e-4
    assert np.abs(ours - untied).max() / theirs.std() > 0.1


def test_a_second_matrix_counts_even_where_the_config_ties(tensors: Tensors, tmp_path: Path):
    """As in transformers 5, which warns; transformers 4 would take the embeddings: so a note says it."""
    folder = folder_of(tmp_path / "hf", is_tied=True, tensors=tensors)
    files, notes = press(folder, tmp_path / "out")
    assert files == press(NANO, tmp_path / "untied")[0]
    assert [n for n in notes if "transformers 4 would use the embeddings" in n]
    loaded = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float16)
    assert torch.equal(loaded.get_output_embeddings().weight, tensors[OUT])


@pytest.mark.parametrize("missing", [IN, OUT])
def test_a_missing_matrix_that_nothing_ties_is_refused(missing: str, tensors: Tensors, tmp_path: Path):
    kept = {n: t for n, t in tensors.items() if n != missing}
    folder = folder_of(tmp_path / "hf", is_tied=False, tensors=kept)
    with pytest.raises(ModelFileError, match="tensor is missing") as e:
        quantize(folder, tmp_path / "out", dry_run=True)
    assert "tie_word_embeddings" in str(e.value)


def test_tied_weights_are_read_from_the_hub(
    hub: LoopbackHub, tensors: Tensors, in_full: dict[str, bytes], tmp_path: Path
):
    folder = folder_of(tmp_path / "hf", is_tied=True)
    without_output(folder, tensors)
    hub.add("me/tied", folder)
    files, notes = press("me/tied", tmp_path / "out")
    assert files == in_full
    assert [n for n in notes if "is a copy of" in n] and [n for n in notes if "read from the Hub" in n]


def test_sizes_of_a_dry_run_are_those_of_the_files(tensors: Tensors, in_full: dict[str, bytes], tmp_path: Path):
    folder = folder_of(tmp_path / "hf", is_tied=True)
    without_output(folder, tensors)
    forecast = quantize(folder, quants="Q4_0,Q8_0", keep_f16=True, name="nano", dry_run=True)
    sizes = {f.quant: f.n_bytes for f in forecast.files}
    assert {q: sizes[q] for q in ("Q4_0", "Q8_0")} == {q: len(in_full[q]) for q in ("Q4_0", "Q8_0")}
