"""Folders of the sample that differ in what their files say of special tokens, and a model that writes such tokens.

The rows past the sample's vocabulary are rows of common tokens, a little larger: the model writes the new tokens where
the sample writes those.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

NANO = Path(__file__).parents[2] / "examples" / "nano"
FAST = "PreTrainedTokenizerFast"
N_ROWS = 4112
Files = dict[str, Any]


def added(i: int, text: str, **flags: bool) -> dict[str, Any]:
    """An added token as tokenizer.json lists it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": i, "content": text} | plain | flags


def around(before: str | None, after: str | None, ids: dict[str, int]) -> dict[str, Any]:
    """A template that puts tokens around every text."""

    def of(*sequences: str) -> list[dict[str, Any]]:
        text = [{"Sequence": {"id": name, "type_id": 0}} for name in sequences]
        first, last = ([] if t is None else [{"SpecialToken": {"id": t, "type_id": 0}}] for t in (before, after))
        return [*first, *text, *last]

    names = [t for t in (before, after) if t is not None]
    return {
        "type": "TemplateProcessing",
        "single": of("A"),
        "pair": of("A", "B"),
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in names},
    }


CHAT = {"<|im_start|>": 4096, "<|im_end|>": 4097}


def with_tokens(files: Files, tokens: dict[str, int], **flags: bool) -> Files:
    """Tokens added as save_pretrained lists them."""
    entries = [added(i, text, **flags) for text, i in tokens.items()]
    files["tokenizer.json"]["added_tokens"] += entries
    decoder = files["tokenizer_config.json"].setdefault("added_tokens_decoder", {})
    decoder |= {str(e["id"]): {k: v for k, v in e.items() if k != "id"} for e in entries}
    return files


def configured(files: Files, **keys: Any) -> Files:
    """Keys of tokenizer_config.json; `...` takes one away."""
    config = files["tokenizer_config.json"] | keys
    files["tokenizer_config.json"] = {k: v for k, v in config.items() if v is not ...}
    return files


def of_model(files: Files, **keys: Any) -> Files:
    """Keys of config.json and generation_config.json."""
    for name in ("config.json", "generation_config.json"):
        files[name] |= keys
    return files


def chatml(files: Files) -> Files:
    """A ChatML fine-tune as transformers saves it."""
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    # transformers 5 writes extra_special_tokens as a list, on which transformers 4 fails; both read this one.
    files = configured(
        with_tokens(files, CHAT), **named, extra_special_tokens=..., additional_special_tokens=list(CHAT)
    )
    return of_model(files, bos_token_id=4096, eos_token_id=4097, pad_token_id=4097)


def several_ends(files: Files) -> Files:
    """generation_config.json lists ends of which no text tells it."""
    files = with_tokens(files, {"### End": 4096, "### Instruction:": 4097})
    files["generation_config.json"] |= {"eos_token_id": [0, 4096]}
    return files


def ends_in_config(files: Files) -> Files:
    """config.json lists them, and there is no generation_config.json."""
    files = with_tokens(files, {"<stop>": 4096, "<rest>": 4097})
    files["config.json"] |= {"eos_token_id": [0, 4096, 1]}
    del files["generation_config.json"]
    return files


def begin_in_template(files: Files) -> Files:
    files = configured(with_tokens(files, {"<s>": 4096, "<e>": 4097}), bos_token="<s>", eos_token="<e>")
    files["tokenizer.json"]["post_processor"] = around("<s>", None, {"<s>": 4096})
    return of_model(files, bos_token_id=4096, eos_token_id=4097)


def both_in_a_sequence(files: Files) -> Files:
    files = configured(with_tokens(files, {"<s>": 4096, "<e>": 4097}), bos_token="<s>", eos_token="<e>")
    byte_level = dict(files["tokenizer.json"]["pre_tokenizer"])
    template = around("<s>", "<e>", {"<s>": 4096, "<e>": 4097})
    files["tokenizer.json"]["post_processor"] = {"type": "Sequence", "processors": [byte_level, template]}
    return of_model(files, bos_token_id=4096, eos_token_id=4097)


def flag_of_a_generic_class(files: Files) -> Files:
    """add_bos_token, which only some classes follow."""
    files = configured(with_tokens(files, CHAT), bos_token="<|im_start|>", add_bos_token=True, add_eos_token=True)
    return of_model(files, bos_token_id=4096)


def template_of_the_neox_class(files: Files) -> Files:
    """GPTNeoXTokenizer puts its own post-processor in its place, which adds nothing."""
    return configured(begin_in_template(files), tokenizer_class="GPTNeoXTokenizer")


def old_added_tokens(files: Files) -> Files:
    """added_tokens.json beside a tokenizer.json without them, as before transformers 4.34."""
    files["added_tokens.json"] = {"<|prompter|>": 4097, "<|assistant|>": 4096}
    return configured(files, added_tokens_decoder=..., extra_special_tokens=...)


def old_special_map(files: Files) -> Files:
    """special_tokens_map.json overrules there, and its tokens may be new."""
    files = configured(files, added_tokens_decoder=..., extra_special_tokens=...)
    files["special_tokens_map.json"] = {
        "bos_token": {"content": "<bos>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False},
        "eos_token": "<|endoftext|>",
        "additional_special_tokens": ["<|user|>"],
    }
    return files


def padding_named_only(files: Files) -> Files:
    return configured(files, pad_token="[PAD]")


def trained(files: Files) -> Files:
    """As training code saves it, after calls with truncation and padding."""
    files["tokenizer.json"]["truncation"] = {
        "direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    files["tokenizer.json"]["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 1, "pad_type_id": 0,
        "pad_token": "<|padding|>",
    }  # fmt: skip
    return configured(files, pad_token="<|padding|>")


def sequences_and_unknown(files: Files) -> Files:
    data = files["tokenizer.json"]
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [data["pre_tokenizer"]]}
    data["model"] |= {"unk_token": "<|endoftext|>", "fuse_unk": True}
    return files


def no_tokenizer_config(files: Files) -> Files:
    del files["tokenizer_config.json"], files["special_tokens_map.json"]
    return files


def no_begin(files: Files) -> Files:
    """config.json has a begin token that the tokenizer does not name."""
    files = configured(with_tokens(files, CHAT), bos_token=..., eos_token="<|im_end|>", unk_token=...)
    files["special_tokens_map.json"] = {"eos_token": "<|im_end|>"}
    return of_model(files, bos_token_id=0, eos_token_id=4097)


def roberta(files: Files) -> Files:
    files = configured(with_tokens(files, {"<s>": 4096, "<e>": 4097}), bos_token="<s>", eos_token="<e>")
    files = configured(files, cls_token="<s>", sep_token="<e>")
    files["tokenizer.json"]["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["<e>", 4097], "cls": ["<s>", 4096], "trim_offsets": True,
        "add_prefix_space": False,
    }  # fmt: skip
    return of_model(files, bos_token_id=4096, eos_token_id=4097)


def flags_changed(files: Files) -> Files:
    """added_tokens_decoder is newer than tokenizer.json: a token is a control token now."""
    files = with_tokens(files, {"<tool>": 4096, "<note>": 4097}, special=False, normalized=True)
    decoder = files["tokenizer_config.json"]["added_tokens_decoder"]
    decoder["4096"] |= {"special": True, "normalized": False}
    return files


FOLDERS: dict[str, Callable[[Files], Files]] = {
    make.__name__: make
    for make in (
        chatml, several_ends, ends_in_config, begin_in_template, both_in_a_sequence, flag_of_a_generic_class,
        template_of_the_neox_class, old_added_tokens, old_special_map, padding_named_only, trained,
        sequences_and_unknown, no_tokenizer_config, no_begin, roberta, flags_changed,
    )
}  # fmt: skip


def _read() -> Files:
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(NANO.glob("*.json"))}


SAMPLE = _read()


def write_folder(folder: Path, name: str, dtype: torch.dtype = torch.float16) -> Path:
    """The folder with weights for N_ROWS tokens."""
    folder.mkdir(parents=True)
    files = FOLDERS[name](copy.deepcopy({k: v for k, v in SAMPLE.items() if not k.startswith("model")}))
    files["config.json"] |= {"vocab_size": N_ROWS, "dtype": str(dtype).removeprefix("torch.")}
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    weights = {k: v.to(dtype) for k, v in load_file(NANO / "model.safetensors").items()}
    vocabulary = SAMPLE["tokenizer.json"]["model"]["vocab"]
    likely = [vocabulary[text] for text in ("\u010a", "(", "self", "\u0120=")]
    for key in ("gpt_neox.embed_in.weight", "embed_out.weight"):
        rows = torch.stack([weights[key][likely[i % 4]] for i in range(N_ROWS - 4096)])
        weights[key] = torch.cat([weights[key][:4096], (rows * 1.02).to(dtype)])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
