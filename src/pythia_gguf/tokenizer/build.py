"""A vocabulary -> a working tokenizer of the `tokenizers` library.

Every token goes into the BPE model under its own id first, so that added tokens keep their ids even where other ids are
unused.
"""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from pythia_gguf.tokenizer.vocabulary import NFC_OF_PRE, Vocabulary


def build_tokenizer(
    vocabulary: Vocabulary, *, i_bos: int | None = None, i_eos: int | None = None
) -> tokenizers.Tokenizer:
    """A tokenizer for a vocabulary that `check_vocabulary` has passed.

    i_bos, i_eos  ids put before and after every text; None for none
    """
    ids = {token: i for i, token in enumerate(vocabulary.tokens) if token is not None}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(vocabulary.merges)))
    if NFC_OF_PRE[vocabulary.pre]:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        tokenizers.AddedToken(vocabulary.tokens[i], special=kind.special, normalized=kind.normalized)
        for i, kind in vocabulary.added.items()
    ]
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    edges = {name: i for name, i in (("bos", i_bos), ("eos", i_eos)) if i is not None}
    if edges:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[name for name in ("bos", "$A", "eos") if name == "$A" or name in edges],
            special_tokens=[{"id": name, "ids": [i], "tokens": [vocabulary.tokens[i]]} for name, i in edges.items()],
        )
    return tokenizer
