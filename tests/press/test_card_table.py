"""The sizes of the model card this project starts from: pythia-410m-deduped-v0, 19 files."""

from __future__ import annotations

import json
import os
import shutil
from math import prod
from pathlib import Path

import pytest

from press.toy_checkpoint import CONFIG, PYTHIA_410M
from pythia_gguf import quantize
from pythia_gguf.arch import config_from_hf
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.card.listing import size_text

pytestmark = pytest.mark.tokenizer_20b

# RichardErkhov/EleutherAI_-_pythia-410m-deduped-v0-gguf, the table of its README
CARD = {
    "Q2_K": "0.16GB",
    "Q3_K_S": "0.18GB",
    "Q3_K": "0.21GB",
    "Q3_K_M": "0.21GB",
    "Q3_K_L": "0.22GB",
    "IQ4_XS": "0.22GB",
    "Q4_0": "0.23GB",
    "IQ4_NL": "0.23GB",
    "Q4_K_S": "0.23GB",
    "Q4_K": "0.25GB",
    "Q4_K_M": "0.25GB",
    "Q4_1": "0.25GB",
    "Q5_0": "0.27GB",
    "Q5_K_S": "0.27GB",
    "Q5_K": "0.28GB",
    "Q5_K_M": "0.28GB",
    "Q5_1": "0.29GB",
    "Q6_K": "0.31GB",
    "Q8_0": "0.4GB",
}


@pytest.fixture(scope="module")
def folder_410m(tokenizer_20b: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the true shape whose weights are a hole in the file: a dry run reads none."""
    folder = tmp_path_factory.mktemp("hub") / "pythia-410m-deduped-v0"
    folder.mkdir()
    config = CONFIG | PYTHIA_410M
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(tokenizer_20b, folder / "tokenizer.json")
    header, end = {}, 0
    for name, shape in GPT_NEOX.tensor_shapes(config_from_hf(config, "config.json")[0]).items():
        start, end = end, end + 2 * prod(shape)
        header[GPT_NEOX.hf_name(name, path="")] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
    os.truncate(folder / "model.safetensors", 8 + len(text) + end)
    return folder


def sizes(folder: Path, mix: str) -> dict[str, str]:
    return {f.quant: size_text(f.n_bytes) for f in quantize(folder, mix=mix, dry_run=True).files}


def test_mix_2024_prints_all_19_sizes_of_the_card(folder_410m: Path):
    assert sizes(folder_410m, "2024") == CARD


def test_mix_2026_prints_17_and_says_why_two_differ(folder_410m: Path):
    result = quantize(folder_410m, mix="2026", dry_run=True)
    ours = {f.quant: size_text(f.n_bytes) for f in result.files}
    assert {q: (ours[q], CARD[q]) for q in CARD if ours[q] != CARD[q]} == {
        "Q2_K": ("0.17GB", "0.16GB"),
        "Q3_K_L": ("0.23GB", "0.22GB"),
    }
    assert any("Q2_K and Q3_K_L are larger" in note and "Mix 2024 gives" in note for note in result.notes)


def test_names_are_those_of_the_card(folder_410m: Path):
    names = [f.path.name for f in quantize(folder_410m, mix="2024", dry_run=True).files]
    assert names == [f"pythia-410m-deduped-v0.{quant}.gguf" for quant in CARD]


def test_parameters_are_those_of_the_card(folder_410m: Path):
    assert quantize(folder_410m, dry_run=True).n_weights == 405_334_016
