"""What people give in place of a model: adapters, weights of other programs, halves of a checkpoint, data sets.

They are recognized by the names of their files and tensors and by `general.type`; only adapter_config.json is opened.
For each, one line says what it is and what to do instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from pythia_gguf.errors import Argument, ModelFileError, Part, PythiaGGUFError, one_line
from pythia_gguf.gguf.reader import GGUFFile
from pythia_gguf.json_file import read_json_object

ADAPTER = "adapter_config.json"
_PROMPTS = ".*PROMPT.*|P_TUNING|PREFIX_TUNING|CPT"  # kinds of peft that learn inputs
_WEIGHTS = re.compile(r"(?:model(?:-\d+-of-\d+)?\.safetensors|pytorch_model(?:-\d+-of-\d+)?\.bin)(?:\.index\.json)?")
_CHECKPOINT = re.compile(r"(?:checkpoint-|step)(\d+)")
_ORIGINAL = "Take the original model, with model.safetensors or pytorch_model.bin"
_CONVERT = "Its authors may have them as model.safetensors; else transformers before version 5 reads these"

# A name of a file, what a folder with such a file is, and what to do instead; the first that fits counts. Only folders
# without weights that we can read are compared; "{}" is the name that was found.
_FOLDERS: tuple[tuple[str, str, str], ...] = (
    (r"quantize_config\.json|quant_config\.json", "weights that GPTQ or AWQ has quantized ({})", _ORIGINAL),
    (
        r"zero_to_fp32\.py|global_step\d+|(?:bf16_|fp16_)?zero_pp_rank_.*|mp_rank_\d+_model_states\.pt",
        "a checkpoint of DeepSpeed, whose weights are in parts ({})",
        "Put them together: python zero_to_fp32.py FOLDER OUT, then add config.json and tokenizer.json",
    ),
    (
        r".*\.distcp|pytorch_model_fsdp.*|\.metadata",
        "a checkpoint of FSDP, whose weights are in parts ({})",
        "Put them together: accelerate merge-weights FOLDER OUT, then add config.json and tokenizer.json",
    ),
    (
        r"modules\.json|config_sentence_transformers\.json",
        "a model of sentence-transformers ({}), which has no output matrix",
        "Take the language model that it was made from",
    ),
    (
        r"flax_model.*\.msgpack(?:\.index\.json)?",
        "a model with weights of Flax only ({})",
        f"{_CONVERT}: from_flax=True",
    ),
    (r"tf_model.*\.h5(?:\.index\.json)?", "a model with weights of TensorFlow only ({})", f"{_CONVERT}: from_tf=True"),
    (r".*\.ckpt\.(?:index|meta|data.*)|saved_model\.pb", "a model with weights of TensorFlow only ({})", _ORIGINAL),
    (r".*\.onnx(?:_data)?|onnx", "a model with weights of ONNX only ({})", _ORIGINAL),
    (r"openvino_model.*|rust_model\.ot|.*\.mlmodel|.*\.mlpackage", "a model for another program ({})", _ORIGINAL),
    (r"model\.bin", "a model of CTranslate2 ({})", _ORIGINAL),
    (r"model_index\.json", "a pipeline of diffusers ({})", "Give a language model"),
    (r"consolidated.*\.(?:pth|safetensors)", "weights in the layout of their training program ({})", _ORIGINAL),
    (r"dataset_infos?\.json|dataset_dict\.json|.*\.(?:parquet|arrow)", "a data set ({})", "Give a model"),
    (
        r"optimizer\.(?:pt|bin)|optimizer_\d+.*|scheduler\.pt|trainer_state\.json|training_args\.bin|rng_state.*\.pth",
        "the state of a training run without the weights ({})",
        "Give the folder that save_model or save_pretrained wrote",
    ),
    (
        r".*\.(?:ckpt|pth|pt|npz|nemo)",
        "weights in a layout that is not read ({})",
        "Load them with what wrote them and save a model of transformers: save_pretrained",
    ),
    (r".*\.gguf", "a folder of GGUF files ({})", "Give one of them; to quantize, one that is F16, BF16 or F32"),
)
# What a GGUF with such a `general.type` is, and the way out.
_GGUF_TYPES: dict[str, tuple[Part, ...]] = {
    "adapter": ("a LoRA adapter, not a model. Merge it into its model with llama.cpp's llama-export-lora",),
    "imatrix": ("an importance matrix, not a model. quantize takes it beside a model", (", as ", Argument("imatrix"))),
    "mmproj": ("a projector of images or sounds, not a model. Give the language model beside it",),
    "vocab": ("a vocabulary without weights. Give the model",),
}
# Tensors without which the others are not what the model computes with, and the way out.
_HALVES: tuple[tuple[str, str], ...] = (
    (r".*\.lora_[AB]\..*", "of an adapter that is not merged: merge_and_unload() before saving"),
    (
        r".*\.(?:qweight|qzeros|g_idx|scales|SCB|absmax|quant_map|weight_scale|nested_absmax|weight_packed)",
        f"of quantized weights. {_ORIGINAL}",
    ),
)
# Tensors that say what a checkpoint is where some of the model's are missing, and the way out.
_TENSORS: tuple[tuple[str, str], ...] = (
    (
        r"(?:module|_orig_mod|base_model\.model|_fsdp_wrapped_module)\..*",
        "saved with the wrapper around the model: save the model inside it",
    ),
    (r"(?:v_head|score|classifier)\..*", "of a head that writes no text: take the language model itself"),
)
_GGUF_ARCHITECTURES = {"clip": "mmproj"}
_OTHER_FILES: tuple[tuple[str, str], ...] = (
    (r".*imatrix.*\.dat", "an importance matrix, not a model. quantize takes it beside a model"),
    (r"adapter_(?:model|config)\..*", "part of an adapter. Give its folder"),
    (r".*\.(?:safetensors|bin|json|pt|pth|ckpt)", "one file of a model. Give the folder that holds it"),
    (r".*\.(?:onnx|msgpack|h5)", f"for another program. {_ORIGINAL}"),
    (r".*\.(?:zip|tar|gz|tgz|xz|zst|7z)", "an archive. Unpack it and give what was in it"),
)


def refuse_other_folder(folder: Path, elsewhere: Collection[str] = (), name: str | None = None) -> None:
    """Raise ModelFileError for a folder that is recognized as something other than a checkpoint.

    elsewhere  names of files that belong in it and are not on this machine
    name       what the message calls the folder; None: its path
    """
    names, path = sorted({*_names_in(folder), *elsewhere}), name or folder
    has_weights = holds_weights(folder, elsewhere)
    if ADAPTER in names and not (has_weights and "config.json" in names):
        raise ModelFileError(_adapter(folder), path=path)
    if has_weights:
        return
    if inner := _inner(folder, names):
        raise ModelFileError(f"holds checkpoints. Give one of them: {one_line(str(inner), 200)}", path=path)
    for pattern, what, way_out in _FOLDERS:
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        if found is not None:
            raise ModelFileError(f"is {what.format(one_line(found, 60))}. {way_out}", path=path)


def holds_weights(folder: Path, elsewhere: Collection[str] = ()) -> bool:
    """Whether some of the files of a folder, or of those that belong into it, hold the weights of a model."""
    return any(map(_WEIGHTS.fullmatch, [*_names_in(folder), *elsewhere]))


def _names_in(folder: Path) -> list[str]:
    """Names in a folder; none where it cannot be read, which a later reader reports."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def refuse_other_file(path: Path) -> None:
    """Raise ModelFileError for a file that could not be read as a GGUF, where its name says what it is."""
    for pattern, what in _OTHER_FILES:
        if re.fullmatch(pattern, path.name.lower()) and path.is_file():
            raise ModelFileError(f"is {what}", path=path)


def refuse_half_weights(name: str, path: Path) -> None:
    """Raise ModelFileError for a tensor that says that the others are not all of the model's weights."""
    _refuse_tensor(name, path, _HALVES)


def refuse_other_tensor(name: str, path: Path) -> None:
    """Raise ModelFileError for a tensor that no model has and that says what the checkpoint is."""
    _refuse_tensor(name, path, _TENSORS)


def _refuse_tensor(name: str, path: Path, table: tuple[tuple[str, str], ...]) -> None:
    for pattern, what in table:
        if re.fullmatch(pattern, name):
            raise ModelFileError(f"is {what}", path=path, field=f"tensor {one_line(name, 100)}")


def refuse_other_gguf(gguf: GGUFFile) -> None:
    """Raise ModelFileError for a GGUF whose own keys say that it is no model."""
    kind = gguf.metadata.get("general.type")
    architecture = gguf.metadata.get("general.architecture")
    if isinstance(architecture, str):
        kind = _GGUF_ARCHITECTURES.get(architecture, kind)
    if isinstance(kind, str) and kind in _GGUF_TYPES:
        raise ModelFileError("is ", *_GGUF_TYPES[kind], path=gguf.path)


def _inner(folder: Path, names: list[str]) -> Path | None:
    """The last checkpoint in a folder of them: of a training run, or in a cache of huggingface_hub."""
    if "snapshots" in names:
        folder = folder / "snapshots"
        names = sorted(_names_in(folder))
        found = [(i, name) for i, name in enumerate(names)]
    else:
        found = [(int(match[1]), name) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    inner = [folder / name for _, name in sorted(found) if os.path.lexists(folder / name / "config.json")]
    return inner[-1] if inner else None


def _adapter(folder: Path) -> str:
    try:
        config = read_json_object(folder / ADAPTER)
    except PythiaGGUFError:
        config = {}
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    shown = f"an adapter ({one_line(kind, 20)})" if isinstance(kind, str) else "an adapter"
    of = f" of {one_line(base, 100)}" if isinstance(base, str) and base else ""
    if isinstance(kind, str) and re.fullmatch(_PROMPTS, kind):
        return f"is {shown}{of}, not a model, and has nothing that could be merged into its weights. Give that model"
    return (
        f"is {shown}{of}, not a model. Merge it, in Python:"
        " peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(OUT)"
    )
