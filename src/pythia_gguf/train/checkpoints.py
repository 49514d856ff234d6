"""Checkpoints of a run: folders that transformers loads and `pythia quantize` takes, with what it takes to go on.

RUN/stepN/, and RUN/.between/stepN/ for the state between two checkpoints:
    config.json, model.safetensors, tokenizer.json ...   the model, in the type that people load
    training.safetensors                                 weights and both moments of Adam in float32, generator of torch
    training.json                                        where the training is, and a SHA-256 of every file
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pythia_gguf.errors import Argument, ModelFileError, StorageError, UsageError, one_line
from pythia_gguf.export.config_files import NamedTokens, config_keys, config_texts
from pythia_gguf.files import fsync_folder, read_whole, sha256_of, storage_error, write_text
from pythia_gguf.hub.run_folder import steps_in
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer
from pythia_gguf.train.model import Transformer
from pythia_gguf.train.recipe import Recipe
from pythia_gguf.train.update import LossScale, Trainer, digest

SCHEMA_VERSION = 1
EOD = "<|endoftext|>"
MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE, _TENSORS, _WEIGHTS = "training.json", "training.safetensors", "model.safetensors"
_RNG = "generator"
_SHAPE = {
    "step": int,
    "n_updates": int,
    "loss_scale": {"scale": float, "patience": int, "n_clean": int},
    "recipe": dict,
    "data": dict,
    "made_with": dict,
    "digest": str,
    "files": {"*": str},
}


def save_checkpoint(
    run: Path, trainer: Trainer, *, data: Mapping[str, Any], tokenizer: Path | None, dtype: str
) -> Path:
    """Write RUN/stepN, whole or not at all.

    data        what the rows are, as JSON
    tokenizer   a tokenizer.json to put beside the weights
    dtype       of the weights in model.safetensors
    Raises      StorageError
    """
    step = trainer.step
    hidden, final = run / f".step{step}.unfinished", run / f"step{step}"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()
        _write_model(hidden, trainer.model, trainer.recipe, tokenizer, dtype)
        _save(_tensors_of(trainer), hidden / _TENSORS)
        names = sorted(path.name for path in hidden.iterdir())
        told = {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "n_updates": trainer.n_updates,
            "loss_scale": dataclasses.asdict(trainer.loss_scale),
            "recipe": dataclasses.asdict(trainer.recipe),
            "data": dict(data),
            "digest": digest(trainer.model),
            "made_with": made_with(trainer),
            "files": {name: sha256_of(hidden / name) for name in names},
        }
        write_text(hidden / _STATE, json_text(told, indent=2) + "\n")
        if final.exists():  # damaged, or of another run that was told to give way
            shutil.rmtree(final)
        os.rename(hidden, final)
        fsync_folder(run)
    except OSError as e:
        raise storage_error(final, e) from e
    return final


def made_with(trainer: Trainer) -> dict[str, Any]:
    """What last bits may depend on, besides the recipe and the data."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": trainer.device.type,
        "micro": trainer.micro,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def between(run: Path) -> Path:
    """Where the state between two checkpoints is kept."""
    return run / ".between"


def remove_unfinished(run: Path) -> None:
    """Take away what killed runs have left of checkpoints that they were writing."""
    for folder in (run, between(run)):
        for left in folder.glob(".step*.unfinished"):
            shutil.rmtree(left, ignore_errors=True)


def drop_state(folder: Path) -> None:
    """Take away what it takes to go on from a checkpoint; the model stays."""
    path = folder / _STATE
    if not (folder / _TENSORS).exists():
        return
    told = read_json_object(path, _SHAPE)
    told["files"].pop(_TENSORS, None)
    write_text(path, json_text(told, indent=2) + "\n")  # first, so that no file it lists is ever missing
    with contextlib.suppress(OSError):
        (folder / _TENSORS).unlink()


def states_in(run: Path, before: int | None = None) -> list[Path]:
    """Folders that training can go on from, the latest first; with `before`, those of earlier steps."""
    steps = steps_in(between(run)) | steps_in(run)
    return [steps[n] for n in sorted(steps, reverse=True) if (before is None or n < before) and is_state(steps[n])]


def is_state(folder: Path) -> bool:
    """Whether a folder says that training can go on from it."""
    return (folder / _STATE).is_file() and (folder / _TENSORS).exists()


def newest_state(
    run: Path, before: int | None = None, warn: Callable[[str], None] = lambda line: None
) -> tuple[Path, dict[str, Any]] | None:
    """The latest checkpoint whose files are all as they were written, and what it says; None where there is none.

    before  only checkpoints of earlier steps
    warn    hears in a line of each one that is damaged
    """
    for folder in states_in(run, before):
        try:
            return folder, check_state(folder)
        except (ModelFileError, StorageError) as e:
            warn(f"{e}. An earlier checkpoint is taken")
    return None


def check_state(folder: Path) -> dict[str, Any]:
    """What training.json says, after every file was compared with its hash; raises ModelFileError, StorageError."""
    told = told_of(folder)
    if told["step"] < 0 or not 0 <= told["n_updates"] <= told["step"] or f"step{told['step']}" != folder.name:
        raise ModelFileError("is not of this step", path=folder / _STATE)
    for name, expected in told["files"].items():
        if os.path.basename(name) != name:
            raise ModelFileError(f"names a file elsewhere: {one_line(name, 60)}", path=folder / _STATE)
        if sha256_of(folder / name) != expected:
            raise ModelFileError("damaged: it is not as it was written", path=folder / name)
    return told


def told_of(folder: Path) -> dict[str, Any]:
    """What training.json of a checkpoint says, unchecked; raises StorageError, ModelFileError."""
    return read_json_object(folder / _STATE, _SHAPE, what="a state of a training")


def recipe_of(told: Mapping[str, Any], path: Path) -> Recipe:
    """The recipe in a state; raises ModelFileError for another version's."""
    try:
        return Recipe(**told["recipe"])
    except (TypeError, UsageError) as e:
        raise ModelFileError(f"a recipe of another version: {e}", path=path) from None


def load_state(trainer: Trainer, folder: Path, told: Mapping[str, Any]) -> None:
    """Put a trainer where a checkpoint is, to the bit; raises ModelFileError for one of another model."""
    from safetensors.torch import load_file

    tensors = load_file(folder / _TENSORS)
    parameters = dict(trainer.model.named_parameters())
    expected = {f"{kind}.{name}": p.shape for name, p in parameters.items() for kind in ("weight", *MOMENTS)}
    if {name: t.shape for name, t in tensors.items() if name != _RNG} != expected:
        raise ModelFileError("holds tensors of another model", path=folder / _TENSORS)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            state = {kind: tensors[f"{kind}.{name}"].to(trainer.device) for kind in MOMENTS}
            count = torch.tensor(float(told["n_updates"]), device=trainer.device)
            trainer.optimizer.state[parameter] = {"step": count} | state
    if _RNG in tensors:
        torch.set_rng_state(tensors[_RNG])
    trainer.step, trainer.n_updates = told["step"], told["n_updates"]
    trainer.loss_scale = LossScale(**told["loss_scale"])
    if (found := digest(trainer.model)) != told["digest"]:
        raise ModelFileError(f"expected weights of digest {told['digest']}, got {found}", path=folder / _TENSORS)


def load_weights(model: Transformer, folder: Path) -> None:
    """Take the weights of a Hugging Face folder of the same sizes; raises ModelFileError where they are others."""
    from safetensors.torch import load_file

    tensors = load_file(folder / _WEIGHTS)
    expected = {name: p.shape for name, p in model.named_parameters()}
    if {name: t.shape for name, t in tensors.items()} != expected:
        raise ModelFileError("holds tensors of another model", path=folder / _WEIGHTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def _write_model(folder: Path, model: Transformer, recipe: Recipe, tokenizer: Path | None, dtype: str) -> None:
    tokens = NamedTokens(ids={}, texts={}, ends=())
    if tokenizer is not None:
        end = load_tokenizer(tokenizer).token_to_id(EOD)
        if end is not None:
            kinds = ("bos", "eos", "unk")
            tokens = NamedTokens(ids=dict.fromkeys(kinds, end), texts=dict.fromkeys(kinds, EOD), ends=(end,))
    texts = config_texts(config_keys(recipe.config(), tokens, dtype), tokens)
    if tokenizer is None:
        texts = {"config.json": texts["config.json"]}
    else:
        texts["tokenizer.json"] = read_whole(tokenizer).decode("utf-8")
    for name, text in texts.items():
        write_text(folder / name, text)
    kind = getattr(torch, dtype)
    weights = {name: t.detach().to("cpu", kind) for name, t in model.state_dict().items()}
    for name, weight in weights.items():
        if not weight.isfinite().all():
            way_out = (". Use ", Argument("dtype", "float32"))
            raise ModelFileError(f"does not fit into {dtype}", way_out, path=folder / _WEIGHTS, field=f"tensor {name}")
    _save(weights, folder / _WEIGHTS)


def _tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    found = {_RNG: torch.get_rng_state()}
    for name, parameter in trainer.model.named_parameters():
        found[f"weight.{name}"] = parameter.detach()
        state = trainer.optimizer.state.get(parameter)
        for kind in MOMENTS:
            found[f"{kind}.{name}"] = state[kind] if state else torch.zeros_like(parameter)
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copymode(path.with_name("config.json"), path)  # the library's files are for their owner alone
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
