"""Published rows on this machine: fetched step by step, each step with its hash, and read again.

PREFIX.bin, PREFIX.idx      the rows, as GPT-NeoX reads them
PREFIX.rows.json            which rows they are, where they come from, the SHA-256 of each step
PREFIX.tokenizer.json       what makes text of them
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.arguments import checked, whole_number
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.published import REPOSITORY_OF, ROW_TOKENS, PublishedRows, published_tokenizer
from pythia_gguf.data.token_file import TokenFile, bin_path, idx_path, write_idx
from pythia_gguf.errors import Argument, ModelFileError, UsageError, nearest
from pythia_gguf.files import check_file_place, read_whole, write_all, write_beside, write_text
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.progress import Progress, Silence

SCHEMA_VERSION = 1
_SHAPE = {
    "repo_id": str,
    "commit": str,
    "first_step": int,
    "batch": int,
    "row_tokens": int,
    "sha256_of_steps": [str],
}


def rows_path(prefix: str | os.PathLike[str]) -> Path:
    """The file that says which rows PREFIX.bin holds."""
    return Path(f"{os.fspath(prefix)}.rows.json")


def tokenizer_beside(prefix: str | os.PathLike[str]) -> Path:
    """Where the tokenizer of PREFIX.bin is kept."""
    return Path(f"{os.fspath(prefix)}.tokenizer.json")


class PulledRows:
    """Rows on this machine.

    first_row   the number of the first one in training
    n_rows      how many there are
    row_tokens  tokens of a row
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Open and check them, all but the hashes; raises StorageError, ModelFileError."""
        path = rows_path(prefix)
        told = read_json_object(path, _SHAPE, what="an account of rows that were pulled")
        self.row_tokens, batch, first = (told[key] for key in ("row_tokens", "batch", "first_step"))
        self.n_rows = len(told["sha256_of_steps"]) * batch
        self._tokens = TokenFile(prefix)
        if self.row_tokens < 1 or batch < 1 or first < 1 or self.n_rows * self.row_tokens != self._tokens.n_tokens:
            self._tokens.close()
            raise ModelFileError(f"does not fit to the {self._tokens.n_tokens} tokens beside it", path=path)
        self.first_row = (first - 1) * batch

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        self._tokens.close()

    def read_rows(self, first: int, n: int) -> np.ndarray:
        """Some rows, [n, row_tokens], counted from the first one here."""
        return self._tokens.slice(first * self.row_tokens, n * self.row_tokens).reshape(n, self.row_tokens)


@checked
def pull_rows(
    name: str,
    out: str | os.PathLike[str],
    *,
    first_step: int,
    last_step: int,
    batch: int = 1024,
    endpoint: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fetch the rows of some published steps, both ends included, to PREFIX; a run that was ended goes on.

    force    replace other files of that prefix
    Returns  what PREFIX.rows.json says
    Raises   UsageError, NetworkError, StorageError, LockedError
    """
    if name not in REPOSITORY_OF:
        raise UsageError(
            Argument("name"), f" must be {' or '.join(REPOSITORY_OF)}, got {name!r}{nearest(name, REPOSITORY_OF)}"
        )
    whole_number(1, 2**20)("batch", batch)
    prefix, progress = Path(out), progress or Silence()
    if not 1 <= first_step <= last_step:
        raise UsageError(Argument("steps"), f" must go up from 1, got {first_step}:{last_step}")
    for path in (bin_path(prefix), idx_path(prefix), rows_path(prefix)):
        check_file_place(path)
    rows = PublishedRows(name, endpoint)
    try:
        if last_step * batch > rows.n_rows:
            raise UsageError(Argument("steps"), f": there are {rows.n_rows // batch} steps of {batch} rows")
        plan = {"repo_id": rows.repo_id, "commit": rows.commit, "first_step": first_step, "last_step": last_step}
        plan |= {"batch": batch}
        if (told := _already(prefix, plan, force)) is not None:
            return told
        tokenizer = read_whole(published_tokenizer(endpoint))
        with GrowingFiles(prefix, ("tokens",), plan) as files:
            hashes = _fetch_steps(rows, files, plan, progress)
            # The tokens come last: until they are in place, running again finishes this, whatever else is there.
            bin_path(prefix).unlink(missing_ok=True)
            write_idx(idx_path(prefix), np.full(len(hashes) * batch, ROW_TOKENS, np.int32), in_order=True)
            with write_beside(tokenizer_beside(prefix)) as file:
                write_all(file, tokenizer)
            told = {"schema_version": SCHEMA_VERSION, "repo_id": rows.repo_id, "commit": rows.commit}
            told |= {"first_step": first_step, "batch": batch, "row_tokens": ROW_TOKENS, "sha256_of_steps": hashes}
            write_text(rows_path(prefix), json_text(told))
            files.move("tokens", bin_path(prefix))
            files.remove()
        return told
    finally:
        rows.close()


def _fetch_steps(rows: PublishedRows, files: GrowingFiles, plan: dict[str, Any], progress: Progress) -> list[str]:
    """Append every step that is not there yet; returns the hashes of all."""
    hashes: list[str] = list(files.position.get("hashes", []))
    first, last, batch = (plan[key] for key in ("first_step", "last_step", "batch"))
    progress.stage("fetching", (last - first + 1) * batch, "rows")
    progress.advance("there already", len(hashes) * batch)
    for step in range(first + len(hashes), last + 1):
        data = rows.read_rows(batch * (step - 1), batch).tobytes()
        files.append("tokens", data)
        hashes.append(hashlib.sha256(data).hexdigest())
        files.save({"hashes": hashes})
        progress.advance(f"step {step}", batch)
    return hashes


def _already(prefix: Path, plan: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """What an earlier run noted of the same rows; raises UsageError where other files would be replaced."""
    if force or not bin_path(prefix).exists():
        return None
    if rows_path(prefix).is_file():
        told = read_json_object(rows_path(prefix), _SHAPE, what="an account of rows that were pulled")
        steps = {"first_step": told["first_step"], "last_step": told["first_step"] + len(told["sha256_of_steps"]) - 1}
        if plan == {key: told[key] for key in ("repo_id", "commit", "batch")} | steps:
            PulledRows(prefix).close()
            return told
    raise UsageError(
        f"{bin_path(prefix)}: other tokens are there. Choose another ",
        Argument("out"),
        ", or use ",
        Argument("force", True),
    )
