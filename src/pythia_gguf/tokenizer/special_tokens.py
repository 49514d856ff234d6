"""The special tokens of a model: which begin, end and pad a text, and which are no text. All code asks here for them.

They come from the keys of a GGUF. Where a GGUF has no key for what the original's files say, or where the converter's
key says something else than transformers does, the manifest beside the file says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import Place, check_shape, objects_beside

_PREFIX = "tokenizer.ggml."
CONTROL, UNUSED = 3, 5  # llama_token_type
# A text ends at each of these, whatever the keys say: llama.cpp 0c1e57098, src/llama-vocab.cpp, `special_eog_ids`.
_END_KEYS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_END_TEXTS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>")
    + ("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>")
    + ("<end_of_utterance>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[")
    + ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")
    + ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>")
)
# A token that ends no text where these are there too.
_NO_END_WITH = (
    ("<|end|>", frozenset({"<|return|>", "<|call|>"})),
    ("<|end|>", frozenset({"<|return|>", "<|calls|>"})),
    ("<|end|>", frozenset({"<|call|>", "<|flush|>"})),
    ("<|end|>", frozenset({"<|calls|>", "<|flush|>"})),
    ("</s>", frozenset({"<|tool_response>"})),
)
MANIFEST_KEY = "special_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids, all of existing tokens; None for none.

    begin, end, pad   the tokens that begin, end and fill up a text
    unknown           the token for text without a token, which a byte-level tokenizer never needs
    ends              every token at which a text ends: the named ones, and those known by their texts as in llama.cpp
    named_ends        the tokens that the model's own files name, at which transformers ends a text
    control           tokens that are no text; decoding may leave them out
    adds_begin, adds_end  whether every text that is encoded gets the token, which a tokenizer then needs
    """

    begin: int | None
    end: int | None
    pad: int | None
    unknown: int | None
    ends: frozenset[int]
    named_ends: frozenset[int]
    control: frozenset[int]
    adds_begin: bool
    adds_end: bool

    @property
    def prefix(self) -> int | None:
        """What stands for an empty text: the token that begins one, else the one that ends one.

        Source: lm_eval 0.4.12, models/huggingface.py, `prefix_token_id`.
        """
        return self.end if self.begin is None else self.begin


def special_tokens(metadata: Mapping[str, object], place: Place) -> SpecialTokens:
    """The special tokens of a GGUF.

    metadata  its keys, which `check_tokenizer_keys` has passed
    place     the file; a manifest.json beside it may say more
    Raises    ModelFileError for a manifest that cannot be read, or is of another model.
    """
    of_keys = tokens_of_keys(metadata)
    tells = "which tokens begin and end a text of {}"
    for beside, manifest in objects_beside(place, ("manifest.json",), tells):
        if (told := manifest.get(MANIFEST_KEY)) is not None:
            return _as_told(of_keys, told, _n_tokens(metadata), beside)
    return of_keys


def tokens_of_keys(metadata: Mapping[str, object]) -> SpecialTokens:
    """The special tokens of a GGUF as its keys alone say them."""
    texts, types = metadata.get(f"{_PREFIX}tokens"), metadata.get(f"{_PREFIX}token_type")
    tokens: list[str | None] = list(texts) if isinstance(texts, list) else []
    kinds = types[: len(tokens)] if isinstance(types, np.ndarray) else np.zeros(len(tokens), np.int32)
    tokens = [None if kind == UNUSED else text for text, kind in zip(tokens, kinds, strict=False)]

    def id_of(name: str) -> int | None:
        i = metadata.get(f"{_PREFIX}{name}_token_id")
        return int(i) if isinstance(i, np.integer) and i < len(tokens) and tokens[i] is not None else None

    named = {i for name in _END_KEYS if (i := id_of(name)) is not None}
    ends = named | {i for i, text in enumerate(tokens) if text in _END_TEXTS}
    for text, others in _NO_END_WITH:
        if others <= {tokens[i] for i in ends}:
            ends = {i for i in ends if tokens[i] != text}
    begin, end = id_of("bos"), id_of("eos")
    return SpecialTokens(
        begin=begin,
        end=end,
        pad=id_of("padding"),
        unknown=id_of("unknown"),
        ends=frozenset(ends),
        named_ends=frozenset(named),
        control=frozenset(np.flatnonzero(kinds == CONTROL).tolist()),
        adds_begin=metadata.get(f"{_PREFIX}add_bos_token") is True,
        adds_end=metadata.get(f"{_PREFIX}add_eos_token") is True,
    )


def tokens_beside(metadata: Mapping[str, object], place: Place) -> dict[str, Any]:
    """What the manifest beside a GGUF says about special tokens and its keys do not; {} for nothing."""
    return what_keys_lack(tokens_of_keys(metadata), special_tokens(metadata, place))


def what_keys_lack(of_keys: SpecialTokens, wanted: SpecialTokens) -> dict[str, Any]:
    """What the manifest must say beside keys that say `of_keys`, so that readers have `wanted`; {} for nothing."""
    told = {name: getattr(wanted, name) for name in _TOLD if getattr(wanted, name) != getattr(of_keys, name)}
    if more := sorted(wanted.named_ends - of_keys.named_ends):
        told["ends"] = more
    if shown := sorted(of_keys.control - wanted.control):
        told["text"] = shown
    return told


_TOLD: dict[str, Any] = {
    "begin": (int, None),
    "end": (int, None),
    "pad": (int, None),
    "adds_begin": bool,
    "adds_end": bool,
}
_SHAPE = {f"{name}?": shape for name, shape in _TOLD.items()} | {"ends?": [int], "text?": [int]}


def _as_told(tokens: SpecialTokens, told: object, n_tokens: int, path: Path) -> SpecialTokens:
    """The same tokens with what the manifest says differently."""
    try:
        check_shape(told, _SHAPE)
        assert isinstance(told, dict)
        given = {name: told[name] for name in _TOLD if name in told}
        more = frozenset(told.get("ends", ()))
        tokens = replace(
            tokens,
            **given,
            ends=tokens.ends | more,
            named_ends=tokens.named_ends | more,
            control=tokens.control - set(told.get("text", ())),
        )
        ids = [i for i in (tokens.begin, tokens.end, tokens.pad, *tokens.ends) if i is not None]
        if not 0 <= min(ids, default=0) <= max(ids, default=0) < max(n_tokens, 1):
            raise ValueError(f"expected ids in 0..{n_tokens - 1}: is it of another model?")
        if (tokens.adds_begin and tokens.begin is None) or (tokens.adds_end and tokens.end is None):
            raise ValueError("a token that is not named is to be put around every text")
    except ValueError as e:
        raise ModelFileError(str(e), path=path, field=MANIFEST_KEY) from e
    return tokens


def _n_tokens(metadata: Mapping[str, object]) -> int:
    tokens = metadata.get(f"{_PREFIX}tokens")
    return len(tokens) if isinstance(tokens, list) else 0
