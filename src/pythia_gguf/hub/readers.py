"""Which files of a repository programs take for a model, by their names: transformers checkpoints, llama.cpp GGUFs."""

from __future__ import annotations

import re
from collections.abc import Callable

# Weights of transformers, in every layout and variant, and the files beside them that it reads first.
_CHECKPOINT = re.compile(
    r"(?:model|pytorch_model|adapter_model)(?:\.[\w-]+)?(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index(?:\.[\w-]+)?\.json)?"
    r"|(?:tf_model|flax_model).*\.(?:h5|msgpack)(?:\.index\.json)?|rust_model\.ot|model\.ckpt.*"
    r"|(?:config|generation_config|adapter_config|quantize_config|quant_config)\.json"
    r"|(?:tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|merges\.txt|\w+\.model"
    r"|chat_template\.(?:jinja|json)|additional_chat_templates/[\w-]+\.jinja"
)
# Projectors of images and importance matrices are no models; an adapter may be merged, which its name does not show.
_NO_MODEL = re.compile(r"(?:^|[._-])(?:mmproj(?:[._-]|$)|imatrix$)", re.IGNORECASE)
_GGUF_TEXTS = ("manifest.json", "SHA256SUMS")


def is_gguf_model(path: str) -> bool:
    """Whether a file can be a model, or a part of one, that llama.cpp or this program runs."""
    leads_out = path.startswith("/") or "\\" in path or ".." in path.split("/")
    return path.lower().endswith(".gguf") and not leads_out and not _NO_MODEL.search(path.rpartition("/")[2][:-5])


def _is_of_ggufs(path: str) -> bool:
    return path in _GGUF_TEXTS or is_gguf_model(path)


def _is_of_checkpoint(path: str) -> bool:
    return _CHECKPOINT.fullmatch(path) is not None


# What a folder holds -> whether a reader takes a file for a part of it.
READERS: dict[str, Callable[[str], bool]] = {"gguf": _is_of_ggufs, "checkpoint": _is_of_checkpoint}
