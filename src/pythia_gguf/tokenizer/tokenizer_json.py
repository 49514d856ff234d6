"""tokenizer.json -> a checked vocabulary, or a refusal that names what this project does not support.

Two pipelines are accepted, both byte-level BPE with GPT-2's splitting: the GPT-NeoX-20B one, which brings text to NFC
first, and the plain one. Fields are those of the `tokenizers` library, 0.10 to 0.23.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NoReturn

from tokenizers import Tokenizer

from pythia_gguf.errors import ModelFileError, nearest
from pythia_gguf.json_file import read_json_object
from pythia_gguf.tokenizer.build import build_tokenizer
from pythia_gguf.tokenizer.vocabulary import BYTE_SYMBOLS, MAX_TOKENS, AddedToken, Vocabulary, check_vocabulary

# For each part of the file: field -> values that mean the same to us; None stands for any value.
_ANY = None
_FIELDS: dict[str, dict[str, tuple[object, ...] | None]] = {
    "": {
        "version": ("1.0",),
        "truncation": _ANY,  # these two shape batches, not the tokens of a text
        "padding": _ANY,
        "added_tokens": _ANY,
        "normalizer": _ANY,
        "pre_tokenizer": _ANY,
        "post_processor": _ANY,
        "decoder": _ANY,
        "model": _ANY,
    },
    "model": {
        "type": ("BPE",),
        "dropout": (None, 0.0),
        "unk_token": _ANY,  # every byte has a token
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "fuse_unk": (False, True),  # so nothing is unknown, and these mean nothing
        "byte_fallback": (False, True),
        "ignore_merges": (False,),
        "vocab": _ANY,
        "merges": _ANY,
    },
    "normalizer": {"type": ("NFC",)},
    "pre_tokenizer": {
        "type": ("ByteLevel",),
        "add_prefix_space": (False,),
        "use_regex": (True,),
        "trim_offsets": (False, True),  # offsets only, as in the next two
    },
    "decoder": {
        "type": ("ByteLevel",),
        "add_prefix_space": (False, True),
        "use_regex": (False, True),
        "trim_offsets": (False, True),
    },
    "added token": {
        "id": _ANY,
        "content": _ANY,
        "special": (False, True),
        "normalized": (False, True),
        "single_word": (False,),
        "lstrip": (False,),
        "rstrip": (False,),
    },
}
_FIELDS["post_processor"] = _FIELDS["decoder"]
# Of a `Sequence`: the name of its list.
_STEPS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
    "post_processor": "processors",
}
_REQUIRED = {
    "normalizer": ("type",),
    "pre_tokenizer": ("type", "add_prefix_space"),
    "decoder": ("type",),
    "post_processor": ("type",),
    "added token": ("id", "content", "special", "normalized"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Ids of the tokens that stand before and after every text; None for none."""

    before: int | None
    after: int | None


def vocabulary_of(data: dict[str, object], path: str | os.PathLike[str]) -> Vocabulary:
    """The checked vocabulary of a parsed tokenizer.json.

    path    where it came from, for messages
    Raises  ModelFileError for anything but the two pipelines, and for a vocabulary with holes, repeats or merges
            that lead nowhere.
    """
    _check_fields(data, "", path)
    for part in ("pre_tokenizer", "decoder"):
        steps = _steps(data.get(part), part, path)
        if len(steps) != 1:
            _fail(f"expected one step, got {len(steps)}", part, path)
        _check_fields(steps[0], part, path)
    normalizers = [] if data.get("normalizer") is None else _steps(data["normalizer"], "normalizer", path)
    for step in normalizers:
        _check_fields(step, "normalizer", path)
    model = _check_fields(data.get("model"), "model", path)
    tokens = _tokens(model.get("vocab"), path)
    added = _added_tokens(data.get("added_tokens"), tokens, path)
    vocabulary = Vocabulary(
        pre="olmo" if normalizers else "gpt-2",
        tokens=_dense(tokens, path),
        added=added,
        merges=_merges(model.get("merges"), path),
    )
    check_vocabulary(vocabulary, path)
    return vocabulary


def around_of(data: dict[str, object], vocabulary: Vocabulary, path: str | os.PathLike[str]) -> Around:
    """What the post-processor of a parsed tokenizer.json puts around every text.

    Raises  ModelFileError for a post-processor that is none of the four kinds, or puts several tokens on one side, or
            one that there is not.
    """
    before: list[int] = []
    after: list[int] = []
    value, part = data.get("post_processor"), "post_processor"
    for step in [] if value is None else _steps(value, part, path):
        fields = step if isinstance(step, dict) else {}
        if fields.get("type") == "TemplateProcessing":
            first, last = _template(fields, path)
        elif fields.get("type") in ("RobertaProcessing", "BertProcessing"):
            first, last = ([_pair(fields, side, path)] for side in ("cls", "sep"))
        else:
            _check_fields(step, part, path)
            continue
        before, after = [*first, *before], [*after, *last]
    if max([*before, *after], default=0) >= len(vocabulary.tokens):
        _fail(f"no token has id {max([*before, *after])}", part, path)
    if max(len(before), len(after)) > 1:
        _fail(f"puts {len(before)} and {len(after)} tokens around every text, and a GGUF can say one", part, path)
    return Around(before=before[0] if before else None, after=after[0] if after else None)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The working tokenizer of a tokenizer.json file.

    It is built from the checked vocabulary: the library never parses the file itself.
    Raises  StorageError and what `read_json_object`, `vocabulary_of` and `around_of` raise.
    """
    data = read_json_object(path, allow_nan=True)
    vocabulary = vocabulary_of(data, path)
    around = around_of(data, vocabulary, path)
    return build_tokenizer(vocabulary, i_bos=around.before, i_eos=around.after)


def _check_fields(value: object, part: str, path: str | os.PathLike[str]) -> dict[str, object]:
    """`value` itself when it is an object whose fields all are known and mean what we support."""
    if not isinstance(value, dict):
        _fail(f"expected an object, got {value!r}", part, path)
    fields = _FIELDS[part]
    for name, got in value.items():
        where = f"{part}.{name}" if part else name
        if name not in fields:
            _fail(f"unknown field{nearest(name[:80], fields)}", where, path)
        allowed = fields[name]
        if allowed is not None and not any(got is a or (got == a and type(got) is type(a)) for a in allowed):
            shown = " or ".join(repr(a) for a in allowed)
            _fail(f"only {shown} is supported, got {got!r}{nearest(str(got)[:80], map(str, allowed))}", where, path)
    for name in _REQUIRED.get(part, ()):
        if name not in value:
            _fail("key is missing", f"{part}.{name}", path)
    return value


def _steps(value: object, part: str, path: str | os.PathLike[str]) -> list[object]:
    """A part of the pipeline as the steps that it is made of; those of a `Sequence` are listed under its own name."""
    if not isinstance(value, dict) or value.get("type") != "Sequence":
        return [value]
    steps = value.get(_STEPS[part])
    if not isinstance(steps, list):
        _fail(f"expected a list of {_STEPS[part]}", part, path)
    return [step for inner in steps for step in _steps(inner, part, path)]


def _template(step: dict[str, Any], path: str | os.PathLike[str]) -> tuple[list[int], list[int]]:
    """The ids that a template puts before and after a single text."""
    part = "post_processor"
    single, names = step.get("single"), step.get("special_tokens")
    if not isinstance(single, list) or not isinstance(step.get("pair"), list) or not isinstance(names, dict):
        _fail("expected a template with single, pair and special_tokens", part, path)
    sides: list[list[int]] = [[]]
    for piece in single:
        match piece:
            case {"Sequence": {"id": "A"}}:
                sides.append([])
            case {"SpecialToken": {"id": str(name)}}:
                match names.get(name):
                    case {"ids": [*ids]} if all(type(i) is int and i >= 0 for i in ids):
                        sides[-1] += ids
                    case _:
                        _fail(f"{name[:80]!r} has no ids", f"{part}.special_tokens", path)
            case _:
                _fail(f"expected a text or a token, got {str(piece)[:80]}", f"{part}.single", path)
    if len(sides) != 2:
        _fail("expected one text in it", f"{part}.single", path)
    return sides[0], sides[1]


def _pair(step: dict[str, Any], side: str, path: str | os.PathLike[str]) -> int:
    pair = step.get(side)
    if not isinstance(pair, list) or [type(part) for part in pair] != [str, int] or pair[1] < 0:
        _fail("expected a token and its id", f"post_processor.{side}", path)
    return int(pair[1])


def _tokens(vocab: object, path: str | os.PathLike[str]) -> dict[int, str]:
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= MAX_TOKENS:
        _fail(f"expected an object of 1 to {MAX_TOKENS} tokens", "model.vocab", path)
    tokens: dict[int, str] = {}
    for text, i in vocab.items():
        if type(i) is not int or not 0 <= i < MAX_TOKENS:
            _fail(f"token {text!r}: expected an id in 0..{MAX_TOKENS - 1}, got {i!r}", "model.vocab", path)
        if i in tokens:
            _fail(f"tokens {tokens[i]!r} and {text!r} share id {i}", "model.vocab", path)
        tokens[i] = text
    return tokens


def _added_tokens(entries: object, tokens: dict[int, str], path: str | os.PathLike[str]) -> dict[int, AddedToken]:
    """The added tokens by id; their texts go into `tokens`."""
    if not isinstance(entries, list) or len(entries) > MAX_TOKENS:
        _fail("expected a list", "added_tokens", path)
    symbols = set(BYTE_SYMBOLS)
    added: dict[int, AddedToken] = {}
    last = -1
    for entry in entries:
        fields = _check_fields(entry, "added token", path)
        i, text = fields["id"], fields["content"]
        if type(i) is not int or not 0 <= i < MAX_TOKENS or not isinstance(text, str):
            _fail(f"expected an id and a text, got {i!r} and {text!r}", "added_tokens", path)
        if i <= last:
            _fail(f"expected ascending ids, got {i} after {last}", "added_tokens", path)
        last = i
        if tokens.setdefault(i, text) != text:
            _fail(f"id {i} is {tokens[i]!r} in model.vocab and {text!r} here", "added_tokens", path)
        added[i] = AddedToken(special=bool(fields["special"]), normalized=bool(fields["normalized"]))
        if not added[i].normalized and not text.isascii() and symbols.issuperset(text):
            # The converter stores what decoding this token gives, which here is not its text.
            _fail(f"token {text!r} cannot be stored in a GGUF: it decodes to other text", "added_tokens", path)
    return added


def _dense(tokens: dict[int, str], path: str | os.PathLike[str]) -> tuple[str, ...]:
    hole = next((i for i in range(len(tokens)) if i not in tokens), None)
    if hole is not None:
        _fail(f"no token has id {hole}, but there are {len(tokens)} tokens", "model.vocab", path)
    return tuple(tokens[i] for i in range(len(tokens)))


def _merges(merges: object, path: str | os.PathLike[str]) -> tuple[tuple[str, str], ...]:
    """Merges written as "a b" (old files) or ["a", "b"]."""
    if not isinstance(merges, list):
        _fail(f"expected a list, got {type(merges).__name__}", "model.merges", path)
    pairs = []
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) and p for p in parts):
            _fail(f"merge {rank}: expected two texts, got {merge!r}", "model.merges", path)
        pairs.append((parts[0], parts[1]))
    return tuple(pairs)


def _fail(message: str, field: str, path: str | os.PathLike[str]) -> NoReturn:
    raise ModelFileError(message, path=path, field=field)
