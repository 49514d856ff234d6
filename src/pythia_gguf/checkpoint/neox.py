"""A checkpoint of the GPT-NeoX library itself: one file for each layer and each part of the model parallelism.

    global_stepN/layer_00-model_00-model_states.pt    embeddings; layer_(i + 2): block i; then norm and output
    global_stepN/layer_00-model_01-model_states.pt    the second part of the same tensors

The files say how many blocks there are; no config is read. Parts are merged as gpt-neox v1.0 (71df4d5) does in
tools/convert_to_hf.py does: rows follow each other, and in `dense` and `dense_4h_to_h` columns; the biases of those two
are added up and norms averaged, both in the type they are stored in.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pythia_gguf.checkpoint.gathered import as_plain
from pythia_gguf.checkpoint.shards import check_stays_inside
from pythia_gguf.checkpoint.tensor import ITEM_BYTES, LazyTensor
from pythia_gguf.checkpoint.torch_zip import read_torch_zip
from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.files import FileElsewhere, ReadableFile, RegularFile
from pythia_gguf.formats import FORMATS
from pythia_gguf.formats.plain import bf16_bits, round_bf16

_STEP = re.compile(r"global_step(\d+)")
_FILE = re.compile(r"layer_(\d{2,3})-model_(\d{2})-model_states\.pt")
_BLOCK_PARTS = (
    "input_layernorm", "post_attention_layernorm", "attention.query_key_value", "attention.dense",
    "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
)  # fmt: skip
_BY_COLUMNS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")
_ADDED = ("attention.dense.bias", "mlp.dense_4h_to_h.bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeoXCheckpoint:
    """Its tensors by their Hugging Face names.

    files      all that hold tensors, in the order of their names
    tensors    sorted by name
    elsewhere  tensors that must be put together, as files that can be read like any other
    """

    files: tuple[Path, ...]
    tensors: dict[str, LazyTensor]
    elsewhere: Mapping[Path, FileElsewhere]


def neox_folder(folder: str | os.PathLike[str]) -> Path | None:
    """The folder global_stepN of a checkpoint, the folder itself or the last step in it; None for any other."""
    root = Path(folder)
    if _has_layers(root):
        return root
    steps = {int(m[1]): root / name for name in _names_in(root) if (m := _STEP.fullmatch(name))}
    whole = [steps[n] for n in sorted(steps) if _has_layers(steps[n])]
    return whole[-1] if whole else None


def _has_layers(folder: Path) -> bool:
    return any(map(_FILE.fullmatch, _names_in(folder)))


def _names_in(folder: Path) -> list[str]:
    """Names in a folder; none where it is no folder or may not be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def open_neox(folder: Path) -> NeoXCheckpoint:
    """Open a folder global_stepN; raises StorageError and ModelFileError as `open_checkpoint`."""
    found: dict[int, dict[int, Path]] = {}
    for name in sorted(os.listdir(folder)):
        if match := _FILE.fullmatch(name):
            check_stays_inside(folder / name)
            found.setdefault(int(match[1]), {})[int(match[2])] = folder / name
    if not found:
        raise StorageError(f"{one_line(str(folder))}: no layer_NN-model_MM-model_states.pt here")
    layers = sorted(found)
    n_parts = max(len(parts) for parts in found.values())
    for layer, parts in found.items():
        if sorted(parts) != list(range(n_parts)):
            raise StorageError(f"{one_line(str(folder))}: layer_{layer:02} has parts {sorted(parts)} of {n_parts}")
    names = dict(_names(layers, folder))
    tensors: dict[str, LazyTensor] = {}
    elsewhere: dict[Path, FileElsewhere] = {}
    for layer in layers:
        opened = [_read(found[layer][i], elsewhere) for i in range(n_parts)]
        for inner, outer in names[layer].items():
            pieces = [_part(tensors_of, inner, found[layer][i]) for i, tensors_of in enumerate(opened)]
            if n_parts == 1:
                tensors[outer] = replace(pieces[0], name=outer)
            else:
                tensors[outer] = _merged(outer, inner, pieces, folder, elsewhere)
    files = tuple(path for layer in layers for _, path in sorted(found[layer].items()))
    return NeoXCheckpoint(files=files, tensors=dict(sorted(tensors.items())), elsewhere=elsewhere)


def _names(layers: Sequence[int], folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """For each layer file, its tensors and what Hugging Face calls them."""
    if len(layers) < 3 or layers[0] != 0:
        raise StorageError(f"{one_line(str(folder))}: layer files are missing, found {len(layers)}")
    # The last file holds the output matrix and follows the norm's; where embeddings are tied there is none.
    is_tied = layers[-1] != layers[-2] + 1
    *inner, norm = layers[1:] if is_tied else layers[1:-1]
    yield 0, {"word_embeddings.weight": "gpt_neox.embed_in.weight"}
    for block, layer in enumerate(inner):
        if layer != block + 2:
            raise StorageError(f"{one_line(str(folder))}: layer_{block + 2:02} is missing")
        kinds = [f"{part}.{kind}" for part in _BLOCK_PARTS for kind in ("weight", "bias")]
        yield layer, {kind: f"gpt_neox.layers.{block}.{kind}" for kind in kinds}
    yield norm, {f"norm.{kind}": f"gpt_neox.final_layer_norm.{kind}" for kind in ("weight", "bias")}
    if not is_tied:
        yield layers[-1], {"final_linear.weight": "embed_out.weight"}


def _read(path: Path, elsewhere: dict[Path, FileElsewhere]) -> dict[str, LazyTensor]:
    """The tensors of a file; those with gaps or in float64 become files as in gathered.py."""
    with RegularFile(path) as file:
        tensors, files = as_plain(read_torch_zip(file).tensors, {})
    elsewhere |= files
    return tensors


def _part(tensors: Mapping[str, LazyTensor], name: str, path: Path) -> LazyTensor:
    if name not in tensors:
        raise ModelFileError("is missing", path=path, field=f"tensor {name}")
    return tensors[name]


def _merged(
    name: str, inner: str, parts: list[LazyTensor], folder: Path, elsewhere: dict[Path, FileElsewhere]
) -> LazyTensor:
    """One tensor of several parts."""
    first = parts[0]
    by_columns = inner in _BY_COLUMNS
    is_vector = "norm" in inner or inner in _ADDED
    for part in parts[1:]:
        if part.dtype != first.dtype or part.shape != first.shape:
            raise ModelFileError(
                f"is {part.dtype} {list(part.shape)}, in the first part {first.dtype} {list(first.shape)}",
                path=part.path,
                field=f"tensor {inner}",
            )
    shape = first.shape
    if by_columns:
        shape = (shape[0], shape[1] * len(parts))
    elif not is_vector:
        shape = (shape[0] * len(parts), *shape[1:])
    n_bytes = int(np.prod(shape)) * ITEM_BYTES[first.dtype]
    path = folder / f"{name} of {len(parts)} parts"
    kind = _Columns if by_columns else _Vector if is_vector else _Rows
    elsewhere[path] = FileElsewhere(
        open=lambda: kind(path, n_bytes, parts, inner not in _ADDED, elsewhere), n_bytes=n_bytes, sha256=""
    )
    return replace(first, name=name, shape=shape, path=path, offset=0, n_bytes=n_bytes)


class _MergedFile(ReadableFile):
    """A tensor of several parts, read like a file; each read opens the parts, because there may be a thousand."""

    def __init__(
        self,
        path: Path,
        size: int,
        parts: list[LazyTensor],
        is_mean: bool,
        elsewhere: Mapping[Path, FileElsewhere],
    ) -> None:
        self.path, self.size = path, size
        self._parts, self._is_mean, self._elsewhere = parts, is_mean, elsewhere

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`; raises ModelFileError past the end."""
        view = memoryview(buffer).cast("B")
        if offset < 0 or len(view) > self.size - offset:
            raise ModelFileError("file is cut short", path=self.path, offset=offset)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(self._open(part)) for part in self._parts]
            self._fill(files, offset, view)

    def _open(self, part: LazyTensor) -> ReadableFile:
        elsewhere = self._elsewhere.get(part.path)
        return elsewhere.open() if elsewhere else RegularFile(part.path)

    def _fill(self, files: list[ReadableFile], offset: int, view: memoryview) -> None:
        raise NotImplementedError

    def _runs(self, files: list[ReadableFile], offset: int, view: memoryview, run: int) -> None:
        """Interleave the parts: `run` bytes come from the first part, as many from the second, and so on around."""
        done = 0
        while done < len(view):
            turn, inside = divmod(offset + done, run)
            row, i = divmod(turn, len(files))
            n = min(run - inside, len(view) - done)
            files[i].read_into(self._parts[i].offset + row * run + inside, view[done : done + n])
            done += n


class _Rows(_MergedFile):
    """Rows of the first part, then those of the second."""

    def _fill(self, files: list[ReadableFile], offset: int, view: memoryview) -> None:
        self._runs(files, offset, view, self._parts[0].n_bytes)


class _Columns(_MergedFile):
    """In each row the columns of the first part, then those of the second."""

    def _fill(self, files: list[ReadableFile], offset: int, view: memoryview) -> None:
        self._runs(files, offset, view, self._parts[0].n_bytes // self._parts[0].shape[0])


class _Vector(_MergedFile):
    """The sum of the parts, divided where the mean is wanted; every step is rounded to their type."""

    def _fill(self, files: list[ReadableFile], offset: int, view: memoryview) -> None:
        dtype = self._parts[0].dtype
        values = [self._numbers(f.read(p.offset, p.n_bytes), dtype) for f, p in zip(files, self._parts, strict=True)]
        total = values[0]
        for value in values[1:]:
            total = self._rounded(total + value, dtype)
        if self._is_mean:
            total = self._rounded(total / np.float32(len(values)), dtype)
        stored = (bf16_bits(total) if dtype == "BF16" else total.astype(FORMATS[dtype].block["w"])).tobytes()
        view[:] = stored[offset : offset + len(view)]

    def _numbers(self, data: bytearray, dtype: str) -> np.ndarray:
        """Stored values as float32."""
        if dtype not in FORMATS:
            raise ModelFileError(f"type {dtype} is not supported", path=self._parts[0].path)
        return FORMATS[dtype].decode(data)

    def _rounded(self, values: np.ndarray, dtype: str) -> np.ndarray:
        """float32 rounded to a type, to nearest even, as float32."""
        return round_bf16(values) if dtype == "BF16" else values.astype(FORMATS[dtype].block["w"]).astype(np.float32)
