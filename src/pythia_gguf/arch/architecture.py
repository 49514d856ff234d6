"""The type that describes one kind of model: everything that the rest of the program asks about it.

Tensor names follow gguf-py/gguf/tensor_mapping.py of llama.cpp 0c1e57098, their order (layer number, then name)
src/llama-quant.cpp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from pythia_gguf.arch.config import MAX_LAYERS, ModelConfig
from pythia_gguf.errors import ModelFileError, nearest, one_line

PathLike = str | os.PathLike[str]
# Row order of a tensor: (first row in a GGUF, first row in Hugging Face, rows), in the order of the GGUF.
RowRuns = tuple[tuple[int, int, int], ...]

_LAYER = r"(0|[1-9][0-9]{0,2})"
_GGUF_NAME = re.compile(rf"(?:blk\.{_LAYER}\.)?([a-z_]+)\.(weight|bias)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A kind of model. A role says what a tensor is for, and is the stem of its name in a GGUF.

    name              `general.architecture` of a GGUF, and the first part of its other keys
    title             its usual name, for messages
    families          models of that kind, for messages
    hf_type           `model_type` of config.json
    hf_class          the class of transformers that we read and write
    read_hf_keys      (keys of config.json, its path) -> sizes, and notes on keys, one line each
    read_gguf_keys    (keys of a GGUF, its path) -> sizes
    gguf_keys         sizes -> keys of a GGUF, in the order and with the types of llama.cpp's converter
    hf_keys           sizes -> keys of config.json that hold them, all but `hidden_act`
    modules           role -> Hugging Face module, outside the layers
    layer_modules     role -> module inside a layer
    layers_prefix     beginning of the names of modules inside a layer, before its number
    body_prefix       beginning of all names but the output matrix's; a model saved without that matrix lacks it
    other_modules     other name of a module -> role
    without_bias      roles that have a weight alone; all others have a weight and a bias
    buffers           ends of names of constants that old checkpoints carry along
    shapes            sizes -> role -> shape of its weight, (rows, columns) or (length,)
    row_runs          sizes -> role -> row order of its weight and bias; roles whose rows stay in place are left out
    embeddings        the embeddings and the output matrix in a GGUF, which holds both where a checkpoint ties them
    """

    name: str
    title: str
    families: str
    hf_type: str
    hf_class: str
    read_hf_keys: Callable[[Mapping[str, object], PathLike], tuple[ModelConfig, tuple[str, ...]]]
    read_gguf_keys: Callable[[Mapping[str, object], PathLike], ModelConfig]
    gguf_keys: Callable[[ModelConfig], dict[str, bool | np.generic]]
    hf_keys: Callable[[ModelConfig], dict[str, Any]]
    modules: Mapping[str, str]
    layer_modules: Mapping[str, str]
    layers_prefix: str
    body_prefix: str
    other_modules: Mapping[str, str]
    without_bias: tuple[str, ...]
    buffers: tuple[str, ...]
    shapes: Callable[[ModelConfig], Mapping[str, tuple[int, ...]]]
    row_runs: Callable[[ModelConfig], Mapping[str, RowRuns]]
    embeddings: tuple[str, str]

    def gguf_name(self, hf_name: str, *, path: PathLike) -> str | None:
        """GGUF name of a Hugging Face tensor; None for a buffer that is left out.

        path    the file that has it, for the message
        Raises  ModelFileError for a name that no such model has.
        """
        if hf_name.endswith(self.buffers):
            return None
        name = self._to_gguf(hf_name)
        if self._parse(name) is None:
            self._refuse_headless(hf_name, path)
            self._refuse(hf_name, [self._to_hf(known) for known in self._names(1)], path)
        return name

    def hf_name(self, gguf_name: str, *, path: PathLike) -> str:
        """Hugging Face name of a GGUF tensor; raises ModelFileError for a name that no such model has."""
        if self._parse(gguf_name) is None:
            self._refuse(gguf_name, self._names(1), path)
        return self._to_hf(gguf_name)

    def role_of(self, gguf_name: str) -> str:
        """Role of a tensor; a bias has the role of its weight. Raises ValueError for a name that no such model has."""
        return self._parsed(gguf_name)[1]

    def layer_of(self, gguf_name: str) -> int | None:
        """Layer of a tensor, None outside the layers; raises ValueError for a name that no such model has."""
        return self._parsed(gguf_name)[0]

    def tensor_shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Every tensor of the GGUF and its shape, (rows, columns) or (length,), in llama-quantize's order."""
        of_roles = self.shapes(config)
        shapes = {}
        for name in self._names(config.n_layers):
            shape = of_roles[self.role_of(name)]
            shapes[name] = shape[:1] if name.endswith(".bias") else shape
        return shapes

    def check_shapes(self, found: Mapping[str, tuple[int, ...]], config: ModelConfig, path: PathLike) -> None:
        """Raises ModelFileError for the first tensor of a model that is unknown, missing or of another shape.

        found   name -> shape, in the order of the file
        """
        expected = self.tensor_shapes(config)
        for name in found:
            if name not in expected:
                raise ModelFileError(
                    f"no {self.title} model of these sizes has such a tensor", path=path, field=f"tensor {name}"
                )
        for name, shape in expected.items():
            if name not in found:
                raise ModelFileError("tensor is missing", path=path, field=f"tensor {name}")
            if found[name] != shape:
                raise ModelFileError(
                    f"expected shape {list(shape)}, got {list(found[name])}", path=path, field=f"tensor {name}"
                )

    def _names(self, n_layers: int) -> list[str]:
        """All GGUF names: outside the layers first, then layer by layer, in each group sorted as strings."""
        groups = [("", self.modules)] + [(f"blk.{i}.", self.layer_modules) for i in range(n_layers)]
        names = []
        for prefix, roles in groups:
            both = [f"{prefix}{role}.{kind}" for role in roles for kind in ("weight", "bias")]
            names += sorted(name for name in both if self._parse(name) is not None)
        return names

    def _parse(self, gguf_name: str) -> tuple[int | None, str] | None:
        """Layer and role of a name; None when no such model has it."""
        match = _GGUF_NAME.fullmatch(gguf_name)
        if match is None:
            return None
        layer, role, kind = match.groups()
        if role not in (self.modules if layer is None else self.layer_modules):
            return None
        if kind == "bias" and role in self.without_bias:
            return None
        if layer is None:
            return None, role
        return (int(layer), role) if int(layer) < MAX_LAYERS else None

    def _parsed(self, gguf_name: str) -> tuple[int | None, str]:
        found = self._parse(gguf_name)
        if found is None:
            raise ValueError(f"no tensor of a {self.title} model: {gguf_name!r}")
        return found

    def _to_gguf(self, hf_name: str) -> str:
        """The GGUF name as the pattern gives it; a role of `None` in it when the module is unknown."""
        match = re.fullmatch(rf"(?:{re.escape(self.layers_prefix)}{_LAYER}\.)?(.+)\.(weight|bias)", hf_name)
        if match is None:
            return ""
        layer, module, kind = match.groups()
        if layer is None:
            roles = {known: role for role, known in self.modules.items()} | dict(self.other_modules)
            return f"{roles.get(module)}.{kind}"
        roles = {known: role for role, known in self.layer_modules.items()}
        return f"blk.{layer}.{roles.get(module)}.{kind}"

    def _to_hf(self, gguf_name: str) -> str:
        layer, role = self._parsed(gguf_name)
        kind = gguf_name.rpartition(".")[2]
        if layer is None:
            return f"{self.modules[role]}.{kind}"
        return f"{self.layers_prefix}{layer}.{self.layer_modules[role]}.{kind}"

    def _refuse_headless(self, hf_name: str, path: PathLike) -> None:
        """Raise for a tensor of a model that was saved without its output matrix, whose names lack `body_prefix`."""
        modules = [f"{module}." for module in self.modules.values() if module.startswith(self.body_prefix)]
        if (self.body_prefix + hf_name).startswith((self.layers_prefix, *modules)):
            raise ModelFileError(
                "is of a model without an output matrix: take the language model itself",
                path=path,
                field=f"tensor {one_line(hf_name, 100)}",
            )

    def _refuse(self, name: str, known: list[str], path: PathLike) -> NoReturn:
        raise ModelFileError(
            f"no tensor of a {self.title} model{nearest(name, known)}", path=path, field=f"tensor {name}"
        )
