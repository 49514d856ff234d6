"""The tokens that a folder's files name beside tokenizer.json: what transformers makes of them when it loads a folder.

tokenizer_config.json and its relatives add tokens to a tokenizer and change their flags. Source: transformers 4.57.6
and 5 (tokenization_utils_base.py `_from_pretrained`, tokenization_utils_fast.py or tokenization_utils_tokenizers.py
`__init__`, models/gpt_neox).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from pythia_gguf.errors import ModelFileError, one_line
from pythia_gguf.tokenizer.vocabulary import AddedToken, Vocabulary

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# The class that transformers takes where no file names one, and its tokens where no file names others.
_NEOX_CLASS = "GPTNeoXTokenizer"
_NEOX_TOKENS = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
_EXTRAS = ("extra_special_tokens", "additional_special_tokens")
_ONLY_FALSE = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTokens:
    """What the files beside a tokenizer.json name.

    kinds      kind of KINDS -> text of the token; kinds without one are left out
    is_neox    whether transformers makes a GPTNeoXTokenizer of them, which puts nothing around a text
    listed     added tokens with their flags, in the order of their ids
    is_newer   whether `listed` is newer than tokenizer.json, so that its flags count
    special    texts of the tokens that have a name, which are control tokens
    """

    kinds: Mapping[str, str]
    is_neox: bool
    listed: tuple[tuple[str, AddedToken], ...]
    is_newer: bool
    special: tuple[str, ...]


def read_named_tokens(
    tokenizer_config: Mapping[str, object],
    special_tokens_map: Mapping[str, object],
    added_tokens: Mapping[str, object],
    config: Mapping[str, object],
    folder: str | os.PathLike[str],
) -> NamedTokens:
    """The named tokens of a folder, from its parsed files; {} stands for a file that is not there.

    config  config.json, which may name the class too
    folder  where the files lie, for messages
    Raises  ModelFileError for a value that is no token, and for a key that transformers 4 and 5 follow differently.
    """
    path = os.path.join(folder, "tokenizer_config.json")
    kind = tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class") or _NEOX_CLASS
    is_neox = str(kind).startswith(_NEOX_CLASS)
    _refuse_switches(tokenizer_config, is_neox, path)
    # 1. Which files count: transformers 4.34 and later write everything into tokenizer_config.json.
    decoder, names = tokenizer_config.get("added_tokens_decoder"), dict(tokenizer_config)
    if decoder is None:  # as before transformers 4.34: two more files, and one overrules the other
        names |= special_tokens_map
    # 2. The tokens with a role; the class GPTNeoXTokenizer has its own where no file names one.
    texts = {kind: text_of(names.get(f"{kind}_token")) for kind in KINDS}
    if is_neox:
        texts |= {kind: text for kind, text in _NEOX_TOKENS.items() if f"{kind}_token" not in names}
    kinds = {kind: text for kind, text in texts.items() if text is not None}
    special = tuple(dict.fromkeys([*kinds.values(), *_extras(names)]))
    # 3. The added tokens, with flags in new files and without them in old ones.
    if decoder is None:
        listed = tuple(_old_entries(added_tokens, special, os.path.join(folder, "added_tokens.json")))
    else:
        listed = tuple(_entries(decoder, path))
    return NamedTokens(kinds=kinds, is_neox=is_neox, listed=listed, is_newer=decoder is not None, special=special)


def with_named_tokens(vocabulary: Vocabulary, named: NamedTokens) -> Vocabulary:
    """The vocabulary as transformers has it: tokens that it lacks get the ids after its last one."""
    tokens, added = list(vocabulary.tokens), dict(vocabulary.added)
    ids = {token: i for i, token in enumerate(tokens) if token is not None}

    def id_of(text: str) -> int:
        if text not in ids:
            ids[text] = len(tokens)
            tokens.append(text)
        return ids[text]

    for text, flags in named.listed:
        i = id_of(text)
        if i not in added or (named.is_newer and added[i] != flags):
            added[i] = replace(flags, special=flags.special or text in named.special)
    for text in named.special:
        added.setdefault(id_of(text), AddedToken(special=True, normalized=False))
    return replace(vocabulary, tokens=tuple(tokens), added=dict(sorted(added.items())))


def text_of(entry: object) -> str | None:
    """The text of a token, which files write as a text or as an object with the text in `content`."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) and text else None


def _refuse_switches(tokenizer_config: Mapping[str, object], is_neox: bool, path: str) -> None:
    if tokenizer_config.get("add_prefix_space"):
        _fail("a space before every text is not supported: a GGUF has no key for it here", "add_prefix_space", path)
    for name in ("add_bos_token", "add_eos_token"):
        if is_neox and tokenizer_config.get(name):
            _fail(
                "transformers 4 follows it for this class and transformers 5 does not. Take it out; or put the token"
                ' into the post_processor of tokenizer.json, with "tokenizer_class": "PreTrainedTokenizerFast"',
                name,
                path,
            )


def _extras(names: Mapping[str, object]) -> Iterator[str]:
    """Texts of the control tokens that have no kind; in a list, or in an object by a name of their own."""
    for field in _EXTRAS:
        value = names.get(field)
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        yield from (text for text in map(text_of, entries) if text is not None)


def _entries(decoder: object, path: str) -> Iterator[tuple[str, AddedToken]]:
    """The tokens of `added_tokens_decoder`: an object with their flags for each id."""
    field = "added_tokens_decoder"
    if not isinstance(decoder, dict):
        _fail("expected an object", field, path)
    if not all(key.isascii() and key.isdigit() for key in decoder):
        _fail("expected ids as keys", field, path)
    for key, entry in sorted(decoder.items(), key=lambda item: int(item[0])):
        text = text_of(entry)
        if text is None or not isinstance(entry, dict):
            _fail(f"token {key}: expected an object with its content", field, path)
        flags = {name: entry.get(name, False) for name in ("special", *_ONLY_FALSE)}
        flags["normalized"] = entry.get("normalized", not flags["special"])
        if odd := next((name for name, flag in flags.items() if not isinstance(flag, bool)), None):
            _fail(f"token {key}: {odd}: expected true or false", field, path)
        if wide := next((name for name in _ONLY_FALSE if flags[name]), None):
            _fail(f"token {key} ({one_line(text, 40)!r}): only false is supported for {wide}", field, path)
        yield text, AddedToken(special=flags["special"], normalized=flags["normalized"])


def _old_entries(added: Mapping[str, object], special: tuple[str, ...], path: str) -> Iterator[tuple[str, AddedToken]]:
    """The tokens of added_tokens.json: an id for each text."""
    ids = {text: i for text, i in added.items() if isinstance(i, int) and not isinstance(i, bool)}
    if odd := next((text for text in added if text not in ids or not text), None):
        _fail(f"{one_line(odd, 40)!r}: expected an id", "", path)
    for text in sorted(ids, key=ids.__getitem__):
        yield text, AddedToken(special=text in special, normalized=text not in special)


def _fail(message: str, field: str, path: str) -> NoReturn:
    raise ModelFileError(message, path=path, field=field or None)
