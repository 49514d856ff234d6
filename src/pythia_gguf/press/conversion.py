"""Makes all metadata of a GGUF from a model's Hugging Face folder, and tells each tensor's format before quantization.

Keys, order, types and formats are as llama.cpp 0c1e57098, convert_hf_to_gguf.py (conversion/base.py, gptneox.py) writes
them, run with transformers 4.57.6 on the same folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf import tokenizer
from pythia_gguf.arch import ARCHITECTURES, ModelConfig, config_from_hf
from pythia_gguf.checkpoint.shards import check_stays_inside
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile
from pythia_gguf.gguf.container import STRING_BYTES_MAX, Metadata
from pythia_gguf.hub.card_keys import without_local_paths
from pythia_gguf.hub.front_matter import front_matter
from pythia_gguf.hub.identity import identity_metadata
from pythia_gguf.json_file import read_json_object, read_text

QUANTIZATION_VERSION = np.uint32(2)  # GGML_QNT_VERSION

_TEXT_FILES = ("config.json", "generation_config.json", *tokenizer.TOKENIZER_FILES, "README.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class HFModel:
    """The content of the text files in a model's folder.

    config    sizes of the model
    metadata  all keys of the GGUF that the converter would write, in order
    special_tokens  facts about special tokens that no key holds; the manifest does
    notes     notes for the user, one line each
    """

    config: ModelConfig
    metadata: Metadata
    special_tokens: dict[str, Any]
    notes: tuple[str, ...]


def read_hf_model(folder: str | os.PathLike[str], *, name: str) -> HFModel:
    """Read config.json, tokenizer.json and, where they exist, README.md and the smaller configs.

    folder  holds the files
    name    stands in for the folder name the converter would see: it gives general.name and its parts
    Raises  StorageError, ModelFileError: one line that names the file and the key.
    """
    folder = Path(folder)
    text_files(folder)
    config_path = folder / "config.json"
    hf_config = read_json_object(config_path, allow_nan=True)
    config, notes = config_from_hf(hf_config, config_path)
    architecture = ARCHITECTURES[config.architecture]
    generation_config = _generation_config(folder / "generation_config.json")
    tokens = tokenizer.read_tokenizer(folder, hf_config, generation_config, config.n_vocab)
    metadata: Metadata = {"general.architecture": architecture.name}
    metadata |= identity_metadata(
        name=name,
        n_params=sum(prod(shape) for shape in architecture.tensor_shapes(config).values()),
        card=_model_card(folder / "README.md"),
        config=hf_config,
        generation_config=generation_config,
        folder=folder,
    )
    metadata |= architecture.gguf_keys(config)
    metadata["general.quantization_version"] = QUANTIZATION_VERSION
    metadata |= tokens.metadata
    for key, value in metadata.items():
        if isinstance(value, str) and len(value.encode()) > STRING_BYTES_MAX:
            raise ModelFileError(f"a text for the GGUF is longer than {STRING_BYTES_MAX} bytes", path=folder, field=key)
    notes = (*(f"config.json: {note}" for note in notes), *tokens.notes)
    return HFModel(config=config, metadata=metadata, special_tokens=tokens.beside, notes=notes)


def text_files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that `read_hf_model` reads, as far as they exist.

    Raises ModelFileError for a link that leads out of the folder and for anything but a regular file under such a
    name, StorageError for a link to nothing: a file is never taken for missing because it cannot be read.
    """
    folder = Path(folder)
    more = folder / "additional_chat_templates"
    if os.path.lexists(more):
        check_stays_inside(more)
    names = [path for path in (folder / name for name in _TEXT_FILES) if os.path.lexists(path)]
    found = (*names, *sorted(more.glob("*.jinja")))
    for path in found:
        check_stays_inside(path)
        RegularFile(path).close()
    return found


def matrix_format(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """The format that the converter's `--outtype auto` gives all matrices of a model: "BF16" or "F16".

    tensors  (dtype, shape) of every tensor of the checkpoint in its reading order, buffers too; dtype as in
             safetensors: "F16", "BF16", "F32", ...
    """
    kept = (dtype for dtype, shape in tensors if len(shape) >= 2 and dtype in ("F16", "BF16"))
    return next(kept, "F16")


def stored_format(shape: tuple[int, ...], matrices: str) -> str:
    """The format of one tensor when matrices have the format `matrices`: biases and norms are always "F32"."""
    return matrices if len(shape) >= 2 else "F32"


def _model_card(path: Path) -> dict[str, object]:
    """The keys of the model card; unlike the converter's, without those that hold a place on a disk."""
    return without_local_paths(front_matter(read_text(path), path)) if path.is_file() else {}


def _optional_object(path: Path) -> dict[str, object]:
    return read_json_object(path, allow_nan=True) if path.is_file() else {}


def _generation_config(path: Path) -> dict[str, object]:
    """The generation config; some published ones are no JSON, and like the converter we do without them."""
    try:
        return _optional_object(path)
    except ModelFileError:
        return {}
