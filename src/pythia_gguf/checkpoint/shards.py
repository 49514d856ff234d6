"""Index of a sharded checkpoint: which tensor lies in which file, and whether those files may be opened.

Source of the layout: transformers 4.57, `get_checkpoint_shard_files` in utils/hub.py, which joins the names of the
index to the folder unchecked; here they are one plain file name each.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pythia_gguf.checkpoint.tensor import MAX_TENSORS, check_name
from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.json_file import read_json_object

MAX_INDEX_BYTES = 4 << 20  # the index of Pythia 12B has 40 KB
MAX_SHARDS = 1024
_INDEX = {"weight_map": {"*": str}}
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def read_index(path: Path, *, suffix: str) -> dict[str, set[str]]:
    """Shards in name order, each with the names of its tensors.

    path    the index
    suffix  how the name of every shard must end: ".safetensors"
    Raises ModelFileError when the index is damaged or names anything but plain files beside it.
    """
    index = read_json_object(path, _INDEX, what="an index of shards", most_bytes=MAX_INDEX_BYTES)
    shards: dict[str, set[str]] = {}
    for tensor, shard in index["weight_map"].items():
        check_name(tensor, path)
        if not _SHARD_NAME.fullmatch(shard) or not shard.endswith(suffix):
            raise ModelFileError(
                f"shard {shard[:80]!r}: expected a plain file name that ends in {suffix}",
                path=path,
                field=f"tensor {tensor}",
            )
        shards.setdefault(shard, set()).add(tensor)
    if len(index["weight_map"]) > MAX_TENSORS or len(shards) > MAX_SHARDS:
        raise ModelFileError(f"more than {MAX_TENSORS} tensors or {MAX_SHARDS} shards", path=path)
    if not shards:
        raise ModelFileError("index without a weight_map that names shards", path=path)
    if len({s.casefold() for s in shards}) != len(shards):
        raise ModelFileError("two shards have names that differ in upper and lower case only", path=path)
    return dict(sorted(shards.items()))


def check_stays_inside(path: Path) -> None:
    """Raise unless `path`, symbolic links followed, lies in its own folder.

    The one other place allowed is where the Hugging Face cache keeps the files of the same repository:
    `models--x--y/snapshots/REVISION/file` may link to `models--x--y/blobs/HASH`.
    Raises StorageError when the file or what it links to is missing, ModelFileError when it lies elsewhere.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        home = Path(os.path.realpath(path.parent, strict=True))
    except OSError as e:
        raise StorageError(f"{one_line(str(path))}: cannot open: {e.strerror}. Download it again") from e
    if not any(real.is_relative_to(allowed) for allowed in (home, *_cache_blobs(home))):
        raise ModelFileError(
            f"links to {real}, outside of the model. Copy the file into the folder if you trust it", path=path
        )


def _cache_blobs(home: Path) -> list[Path]:
    """The `blobs` folder of the Hugging Face cache repository that `home` is a snapshot of, if it is one."""
    repositories = [p.parent.parent for p in (home, *home.parents) if p.parent.name == "snapshots"]
    return [r / "blobs" for r in repositories if r.name.startswith("models--")]


def check_names_match(found: set[str], listed: set[str], *, shard: Path, index: Path) -> None:
    """Raise ModelFileError unless a shard holds exactly the tensors that the index lists for it."""
    if missing := sorted(listed - found):
        raise ModelFileError(
            f"lacks {len(missing)} of the tensors {index.name} lists for it, {missing[0]} first. Download both again",
            path=shard,
        )
    if extra := sorted(found - listed):
        raise ModelFileError(
            f"holds {len(extra)} tensors {index.name} does not list for it, {extra[0]} first. Download both again",
            path=shard,
        )
