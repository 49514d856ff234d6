"""Makes the index of PREFIX.bin: sorts the places of its tokens, part by part, and notes sums of what it writes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.arguments import checked, whole_number
from pythia_gguf.data.array_file import ArrayFile, write_array
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.suffixes import (
    SuffixIndex,
    account_path,
    account_text,
    block_sums,
    facts_of,
    suffixes_path,
    sums_path,
)
from pythia_gguf.data.token_file import TokenFile
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.files import check_file_place, sha256_of, write_text
from pythia_gguf.machine import available_memory_bytes, require_memory
from pythia_gguf.progress import Progress, Silence

# Of memory while a part is sorted: 10 for ids, numbers and places, the rest for counts of the reduced text.
_BYTES_TO_SORT = 20
_MOST_TOKENS, _MOST_OF_A_DOCUMENT = 1 << 30, (1 << 31) - 8


@checked
def make_index(
    prefix: str | os.PathLike[str],
    *,
    force: bool = False,
    part_tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Sort the places of PREFIX.bin, or check the index that is there already; a run that was ended goes on.

    force        make it anew
    part_tokens  tokens that are sorted together; default as many as fit into memory. More parts are slower to search
    Returns      what PREFIX.suffixes.json says, and whether it is new
    Raises       UsageError, StorageError, LockedError; ModelFileError for damaged files
    """
    if part_tokens is not None:
        whole_number(1)("part_tokens", part_tokens)
    progress = progress or Silence()
    for path in (suffixes_path(prefix), sums_path(prefix), account_path(prefix)):
        check_file_place(path)
    if account_path(prefix).is_file() and not force:
        with SuffixIndex(prefix) as index:
            index.check(progress)
            return index.account | {"is_new": False}
    with TokenFile(prefix) as tokens:
        return _make(tokens, part_tokens, progress) | {"is_new": True}


def _make(tokens: TokenFile, part_tokens: int | None, progress: Progress) -> dict[str, Any]:
    from pythia_gguf.kernels.suffixes import sort_documents

    facts, sizes = facts_of(tokens), tokens.sizes()
    files = GrowingFiles(Path(f"{tokens.prefix}.suffixes"), ("array",), facts | {"part_tokens": part_tokens})
    with files:
        parts, last_tokens, (sequence, start) = (files.position.get(k, d) for k, d in _BEGINNING.items())
        while start < tokens.n_tokens:
            next_sequence = _part_end(sizes, sequence, part_tokens)
            inside = sizes[sequence:next_sequence]
            inside = inside[inside > 0]
            ids = tokens.slice(start, int(inside.sum(dtype=np.int64)))
            places = sort_documents(ids, inside, progress)
            if not parts:
                files.append("array", _npy_header(tokens.n_tokens))
            files.append("array", places.data)
            parts = [*parts, start]
            last_tokens = sorted({*last_tokens, *ids[np.cumsum(inside, dtype=np.int64) - 1].tolist()})[:2]
            sequence, start = next_sequence, start + ids.size
            files.save({"parts": parts, "last_tokens": last_tokens, "next": [sequence, start]})
        with ArrayFile(files.folder / "array", ("<u4",), 1) as array:
            sums = np.fromiter(block_sums(array, progress), "<u4")
        # The account comes last: until it is there, nothing takes the array for an index.
        account_path(tokens.prefix).unlink(missing_ok=True)
        write_array(sums_path(tokens.prefix), sums)
        files.move("array", suffixes_path(tokens.prefix))
        told = facts | {"parts": parts, "last_token": last_tokens[0] if len(last_tokens) == 1 else None}
        told |= {"sums_sha256": sha256_of(sums_path(tokens.prefix))}
        write_text(account_path(tokens.prefix), account_text(told))
        files.remove()
    return told


# What a run knows before its first part.
_BEGINNING: dict[str, list[Any]] = {"parts": [], "last_tokens": [], "next": [0, 0]}


def _part_end(sizes: np.ndarray, sequence: int, part_tokens: int | None) -> int:
    """The sequence behind the part that begins with a sequence: whole ones, at least one."""
    available = available_memory_bytes() or 4 << 30
    most = part_tokens or min(_MOST_TOKENS, available // _BYTES_TO_SORT * 3 // 4)
    # Each takes a place of its own while it is sorted.
    ends = np.cumsum(sizes[sequence : sequence + most] + np.int64(1))
    n = max(1, int(np.searchsorted(ends, most, "right")))
    if ends[n - 1] > _MOST_OF_A_DOCUMENT:
        raise UsageError(f"sequence {sequence} has {sizes[sequence]} tokens, too many to be sorted. Divide it")
    fewer = (". Ask for fewer ", Argument("part_tokens")) if part_tokens else ()
    require_memory(int(ends[n - 1]) * _BYTES_TO_SORT, f"sorting {ends[n - 1]} tokens", hints=fewer)
    return sequence + n


def _npy_header(n: int) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<u4", "fortran_order": False, "shape": (n,)})
    return out.getvalue()
