"""Decides, for all commands that quantize, run or export one, whether a GGUF holds a whole model.

It looks at keys and at names and shapes of tensors, never at weights.
"""

from __future__ import annotations

import os
from pathlib import Path

from pythia_gguf.arch import ARCHITECTURES, ModelConfig, config_from_gguf
from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.gguf.reader import GGUFFile, open_gguf, refuse_part
from pythia_gguf.gguf.tensor_source import TensorSource
from pythia_gguf.intake.mistaken import refuse_other_file, refuse_other_folder, refuse_other_gguf
from pythia_gguf.tokenizer import check_tokenizer_keys


def open_gguf_model(path: str | os.PathLike[str]) -> tuple[GGUFFile, ModelConfig]:
    """Its header and its sizes; raises ModelFileError for anything else, StorageError."""
    path = Path(path)
    if os.path.isdir(path):
        refuse_other_folder(path)
        raise StorageError(f"{one_line(str(path))}: is a folder, expected a GGUF")
    gguf = open_any_gguf(path)
    refuse_other_gguf(gguf)
    refuse_part(gguf)
    return gguf, check_model(gguf)


def check_model(source: TensorSource) -> ModelConfig:
    """The sizes of a model by its keys, which its tensors have; raises ModelFileError for anything else."""
    check_tokenizer_keys(source.metadata, source.name)
    config = config_from_gguf(source.metadata, source.name)
    architecture = ARCHITECTURES[config.architecture]
    architecture.check_shapes({n: t.shape for n, t in source.tensors.items()}, config, source.name)
    return config


def open_any_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Any GGUF; for a file that is none, the error says what it is by its name where that says more."""
    try:
        return open_gguf(path)
    except ModelFileError:
        refuse_other_file(Path(path))
        raise
