"""Kinds of models: their sizes, tensor names and shapes, and the row order of fused weights.

`ARCHITECTURES` is the one list of the kinds that we read; code outside this folder looks up the value here, by
`config.architecture`, and asks it.
"""

from collections.abc import Mapping

from pythia_gguf.arch.architecture import Architecture, PathLike, RowRuns
from pythia_gguf.arch.config import ModelConfig
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.arch.keys import Keys

__all__ = ["ARCHITECTURES", "Architecture", "ModelConfig", "RowRuns", "config_from_gguf", "config_from_hf"]

ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in (GPT_NEOX,)}


def config_from_hf(config: Mapping[str, object], path: PathLike) -> tuple[ModelConfig, tuple[str, ...]]:
    """Read the parsed config.json of a model.

    path    where it came from, for messages
    Returns its sizes, and notes on keys that were left out or mean something else to transformers 4, one line each
    Raises  ModelFileError for a model of no architecture in the table, and for everything its architecture refuses.
    """
    by_type = {a.hf_type: a for a in ARCHITECTURES.values()}
    return _found(Keys(config, path), "model_type", by_type).read_hf_keys(config, path)


def config_from_gguf(metadata: Mapping[str, object], path: PathLike) -> ModelConfig:
    """Read the keys of a GGUF, which may come from any writer; arguments and errors as for `config_from_hf`."""
    return _found(Keys(metadata, path), "general.architecture", ARCHITECTURES).read_gguf_keys(metadata, path)


def _found(keys: Keys, key: str, known: Mapping[str, Architecture]) -> Architecture:
    name = keys.get(key, "")
    if not isinstance(name, str) or name not in known:
        expected = " or ".join(f"{other!r} ({a.families})" for other, a in known.items())
        keys.fail(f"expected {expected}, got {name!r}", key)
    return known[name]
