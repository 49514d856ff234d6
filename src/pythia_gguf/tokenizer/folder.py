"""The tokenizer of a Hugging Face folder, put together from all files that have a say in it -> GGUF keys.

The keys are the converter's. Where transformers makes something of the files that no key can say, it is returned beside
the keys, for the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import read_json_object
from pythia_gguf.tokenizer.chat_template import chat_template_metadata
from pythia_gguf.tokenizer.foreign_keys import check_tokenizer_keys
from pythia_gguf.tokenizer.metadata import vocabulary_metadata
from pythia_gguf.tokenizer.named_tokens import read_named_tokens, with_named_tokens
from pythia_gguf.tokenizer.special_keys import special_metadata
from pythia_gguf.tokenizer.special_tokens import tokens_of_keys, what_keys_lack
from pythia_gguf.tokenizer.tokenizer_json import around_of, vocabulary_of
from pythia_gguf.tokenizer.vocabulary import NFC_OF_PRE, check_vocabulary

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_NFC_NOTE = (
    "tokenizer.json leaves text as it is, and so do we, as transformers 4; transformers 5 brings it to Unicode NFC for"
    " this class, GPTNeoXTokenizer"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderTokenizer:
    """What a folder says about its tokenizer.

    metadata  all `tokenizer.*` keys, in order
    beside    what the manifest must say about special tokens; {} where the keys say everything
    notes     what the user should know, one line each
    """

    metadata: dict[str, Any]
    beside: dict[str, Any]
    notes: tuple[str, ...]


def read_tokenizer(
    folder: Path, config: Mapping[str, object], generation_config: Mapping[str, object], n_vocab: int
) -> FolderTokenizer:
    """The tokenizer of a folder.

    config, generation_config  parsed files of these names; the second may be {}
    n_vocab  rows of the embedding
    Raises   StorageError, ModelFileError
    """
    path, config_path = folder / "tokenizer.json", folder / "config.json"
    data = read_json_object(path, allow_nan=True)
    own = vocabulary_of(data, path)
    tokenizer_config, special_map, added = (
        read_json_object(file, allow_nan=True) if (file := folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    named = read_named_tokens(tokenizer_config, special_map, added, config, folder)
    vocabulary = with_named_tokens(own, named)
    check_vocabulary(vocabulary, path)
    around = around_of(data, vocabulary, path)
    metadata: dict[str, Any] = {}
    metadata |= vocabulary_metadata(vocabulary, n_vocab, config_path)
    metadata |= special_metadata(
        own,
        post_processor=data.get("post_processor"),
        tokenizer_config=tokenizer_config,
        config=config,
        n_vocab=n_vocab,
        path=config_path,
    )
    metadata |= chat_template_metadata(folder, tokenizer_config)
    check_tokenizer_keys(metadata, path)  # ids without a token are called [PADi], and a token may have that name
    of_keys = tokens_of_keys(metadata)
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    begin, end, pad = (ids.get(named.kinds.get(kind)) for kind in ("bos", "eos", "pad"))
    if begin is None and end is None:  # then there are only those of config.json
        begin, end = of_keys.begin, of_keys.end
    ends = [end, *_ends(config), *_ends(generation_config)]
    before, after = (None, None) if named.is_neox else (around.before, around.after)
    if before not in (None, begin) or after not in (None, end):
        raise ModelFileError(
            "puts other tokens around a text than tokenizer_config.json names as bos_token and eos_token, and a GGUF"
            " has keys for these alone",
            path=path,
            field="post_processor",
        )
    wanted = replace(
        of_keys,
        begin=begin,
        end=end,
        pad=of_keys.pad if pad is None else pad,
        named_ends=of_keys.named_ends | {i for i in ends if i is not None and i < n_vocab},
        adds_begin=before is not None,
        adds_end=after is not None,
        control=frozenset(i for i, flags in vocabulary.added.items() if flags.special),
    )
    notes = (_NFC_NOTE,) if named.is_neox and not NFC_OF_PRE[vocabulary.pre] else ()

    return FolderTokenizer(metadata=metadata, beside=what_keys_lack(of_keys, wanted), notes=notes)


def _ends(config: Mapping[str, object]) -> list[int]:
    """`eos_token_id` of a config: one, several or none."""
    ids = config.get("eos_token_id")
    return [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int and i >= 0]
