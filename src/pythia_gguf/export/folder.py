"""A GGUF back to a Hugging Face folder: config.json, tokenizer files and model.safetensors.

Weights go through float32 to the wanted type, tensor by tensor, so memory holds one of them; a value that the source
had in the wanted type comes back with the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pythia_gguf.arch import ARCHITECTURES, ModelConfig
from pythia_gguf.arch.activation import DEFAULT_ACT, GELU_OF_ACT, act_beside
from pythia_gguf.arguments import checked, one_of
from pythia_gguf.errors import Argument, ModelFileError, UsageError, nearest, one_line
from pythia_gguf.export.config_files import NamedTokens, config_keys, config_texts
from pythia_gguf.files import check_folder_place, storage_error, write_all, write_beside
from pythia_gguf.formats.plain import bf16_bits, round_bf16
from pythia_gguf.gguf.reader import GGUFFile, decode_tensor
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.json_file import json_text
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.tokenizer import special_tokens, try_tokenizer

DTYPES: dict[str, tuple[str, np.dtype]] = {
    "float16": ("F16", np.dtype("<f2")),
    "bfloat16": ("BF16", np.dtype("<u2")),
    "float32": ("F32", np.dtype("<f4")),
}
_DTYPE_OF_FORMAT = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written; `notes` say in a line each what is to be known of it, such as why there is no tokenizer."""

    folder: Path
    dtype: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


@checked
def export(
    model: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    hidden_act: str | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a folder that transformers 4 and 5 load with AutoModelForCausalLM.

    dtype       "float16", "bfloat16" or "float32"; default that of an unquantized file, else float16
    hidden_act  as config.json shall name it, for which a GGUF has no key; default what manifest.json or config.json
                beside the file says, else "gelu", as on the Hub
    Raises      UsageError when the folder holds a model already, ModelFileError, StorageError
    """
    check_act(hidden_act)
    check_export(to)
    gguf, config = open_gguf_model(model)
    dtype = dtype or dtype_of(gguf, config)
    if dtype not in DTYPES:
        raise UsageError(Argument("dtype"), f": no dtype {dtype!r}: one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    folder = Path(to)
    progress = progress or Silence()
    tokenizer, notes = try_tokenizer(gguf.metadata, gguf.path)
    texts = config_files(gguf, config, dtype, hidden_act)
    if tokenizer is None:
        texts = {_CONFIG: texts[_CONFIG]}
    else:
        texts["tokenizer.json"] = tokenizer.to_str(pretty=True)
    with _made(folder), ExitStack() as stack:
        # They appear together when all is written; config.json, the last, says that nothing is missing.
        for name, text in texts.items():
            write_all(stack.enter_context(write_beside(folder / name)), text.encode("utf-8"))
        _write_weights(stack.enter_context(write_beside(folder / _WEIGHTS)), gguf, config, dtype, progress)
    files = (*(folder / name for name in texts), folder / _WEIGHTS)
    return ExportResult(folder=folder, dtype=dtype, files=files, notes=notes)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder, which does not stay when it was not there and the block fails; StorageError when the disk refuses."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(folder, e) from e
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def check_export(to: str | os.PathLike[str]) -> None:
    """Raise UsageError when a folder holds a model already, StorageError where none can be written."""
    folder, where = Path(to), one_line(os.fspath(to))
    check_folder_place(folder)
    if (folder / _CONFIG).exists():
        raise UsageError(f"{where}: there is a model already. Choose another folder")
    if (folder / _WEIGHTS).exists():
        raise UsageError(
            f"{where}: there is {_WEIGHTS} without {_CONFIG}, as an export leaves it that was killed at its end."
            " Delete it, or choose another folder"
        )


def check_act(hidden_act: str | None) -> None:
    """Raise UsageError for an activation that is no GELU; None: what the files beside say."""
    if hidden_act is not None:
        one_of("hidden_act", hidden_act, tuple(GELU_OF_ACT))


def dtype_of(gguf: GGUFFile, config: ModelConfig) -> str:
    """The type of an unquantized file's matrices; float16 of a quantized one."""
    _, output = ARCHITECTURES[config.architecture].embeddings
    return _DTYPE_OF_FORMAT.get(gguf.tensors[output].format, "float16")


def hf_tensors(gguf: GGUFFile, config: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor by its Hugging Face name, as float32, its rows in the order of Hugging Face."""
    architecture = ARCHITECTURES[config.architecture]
    names = {architecture.hf_name(name, path=gguf.path): name for name in gguf.tensors}
    row_runs = architecture.row_runs(config)
    for hf_name, name in sorted(names.items()):
        values = decode_tensor(gguf, name)
        if runs := row_runs.get(architecture.role_of(name)):
            turned = np.empty_like(values)
            for here, there, n in runs:
                turned[there : there + n] = values[here : here + n]
            values = turned
        yield hf_name, values


def hf_config(gguf: GGUFFile, config: ModelConfig, dtype: str, hidden_act: str | None) -> dict[str, Any]:
    """config.json of a GGUF, its keys sorted."""
    act = hidden_act or act_beside(gguf.path) or DEFAULT_ACT
    return config_keys(replace(config, hidden_act=act), _named_tokens(gguf), dtype)


def config_files(gguf: GGUFFile, config: ModelConfig, dtype: str, hidden_act: str | None) -> dict[str, str]:
    """The JSON files beside tokenizer.json, by name."""
    template = gguf.metadata.get("tokenizer.chat_template")
    return config_texts(
        hf_config(gguf, config, dtype, hidden_act), _named_tokens(gguf), template if isinstance(template, str) else None
    )


def _named_tokens(gguf: GGUFFile) -> NamedTokens:
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", [])
    assert isinstance(tokens, list)
    special = special_tokens(gguf.metadata, gguf.path)
    named = {"bos": special.begin, "eos": special.end, "unk": special.unknown, "pad": special.pad}
    return NamedTokens(
        ids={kind: i for kind, i in named.items() if i is not None},
        texts={kind: tokens[i] for kind, i in named.items() if i is not None and i < len(tokens)},
        ends=tuple(sorted(special.named_ends)),
    )


def _write_weights(out: BinaryIO, gguf: GGUFFile, config: ModelConfig, dtype: str, progress: Progress) -> None:
    """A safetensors file; format: huggingface/safetensors README, "Format"."""
    name_of_dtype, kind = DTYPES[dtype]
    architecture = ARCHITECTURES[config.architecture]
    shapes = {architecture.hf_name(n, path=gguf.path): t.shape for n, t in gguf.tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(shapes):
        n_bytes = int(np.prod(shapes[name])) * kind.itemsize
        header[name] = {"dtype": name_of_dtype, "shape": list(shapes[name]), "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json_text(header).encode()
    text += b" " * (-len(text) % 8)
    write_all(out, len(text).to_bytes(8, "little") + text)
    progress.stage("exporting", at, "bytes")
    for name, values in hf_tensors(gguf, config):
        data = rounded(values, dtype, name, gguf)
        write_all(out, data.tobytes())
        progress.advance(name, data.nbytes)


def rounded(values: np.ndarray, dtype: str, name: str, gguf: GGUFFile) -> np.ndarray:
    """float32 as the wanted type, to nearest even; bfloat16 as bit patterns.

    Raises ModelFileError for what overflows.
    """
    _, kind = DTYPES[dtype]
    with np.errstate(over="ignore"):
        result = round_bf16(values) if dtype == "bfloat16" else values.astype(kind)
    if not np.isfinite(result).all():
        raise ModelFileError(
            f"does not fit into {dtype}",
            (". Use ", Argument("dtype", "float32")),
            path=gguf.path,
            field=f"tensor {name}",
        )
    return bf16_bits(result) if dtype == "bfloat16" else result
