"""The rows that a recipe trains on: those of its own order, in its own order, and no others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.data.order import OrderedRows, find_orders, make_order, samples_for
from pythia_gguf.data.published import REPOSITORY_OF, PublishedRows
from pythia_gguf.data.pulled import PulledRows, rows_path, tokenizer_beside
from pythia_gguf.data.rows import Rows, open_rows
from pythia_gguf.data.token_file import idx_path
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.files import sha256_of
from pythia_gguf.progress import Progress
from pythia_gguf.train.recipe import Recipe


class TrainingRows:
    """Rows by step.

    identity  what they are, as JSON: a resumed run must have the same
    """

    def __init__(self, data: str, recipe: Recipe, progress: Progress) -> None:
        """Open the rows that a recipe needs; documents without any order get theirs.

        data    PREFIX, or the name of a published data set
        Raises  UsageError where the rows do not fit the recipe; StorageError, ModelFileError, NetworkError
        """
        self._recipe = recipe
        self._rows = _opened(data, recipe, progress)
        try:
            self.identity = _identity(data, self._rows, recipe)
            _check(data, self._rows, recipe)
        except BaseException:
            self._rows.close()
            raise

    def of_step(self, step: int) -> np.ndarray:
        """The rows of a step, int64 [batch, context + 1]; raises UsageError for ids that the model does not have."""
        first = self._recipe.batch * (step - 1)
        rows = self._rows.read_rows(first - self._rows.first_row, self._recipe.batch).astype(np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self._recipe.vocabulary:
            bad = rows.max() if rows.max() >= self._recipe.vocabulary else rows.min()
            raise UsageError(f"step {step}: id {bad} of the data, of a vocabulary of {self._recipe.vocabulary}")
        return rows

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        self._rows.close()


def tokenizer_of(data: str) -> Path | None:
    """The tokenizer.json beside PREFIX, or None."""
    path = tokenizer_beside(data)
    return path if data not in REPOSITORY_OF and path.is_file() else None


def _opened(data: str, recipe: Recipe, progress: Progress) -> Rows:
    if data in REPOSITORY_OF or rows_path(data).is_file() or not idx_path(data).is_file():
        return open_rows(data)
    wanted = (samples_for(recipe.steps, recipe.batch), recipe.context, recipe.seed)
    orders = find_orders(data)
    if orders and wanted not in orders:
        told = "; ".join(f"{n} rows of {context + 1} tokens, seed {seed}" for n, context, seed in orders)
        n_steps = f"{recipe.steps} steps of {recipe.batch} rows of {recipe.context + 1} tokens, seed {recipe.seed}"
        way_out = "Make it with pythia data order"
        raise UsageError(f"{one_line(data)}: no order for {n_steps} is there, but others are: {told}. {way_out}")
    make_order(
        data, steps=recipe.steps, batch=recipe.batch, seed=recipe.seed, context=recipe.context, progress=progress
    )
    return OrderedRows(data, *wanted)


def _check(data: str, rows: Rows, recipe: Recipe) -> None:
    name = one_line(data)
    if rows.row_tokens != recipe.context + 1:
        raise UsageError(f"{name}: rows of {rows.row_tokens} tokens, {recipe.context + 1} are wanted")
    if rows.first_row == 0 and rows.n_rows < recipe.steps * recipe.batch:
        raise UsageError(
            f"{name}: {rows.n_rows} rows, {recipe.steps} steps of {recipe.batch} need {recipe.steps * recipe.batch}"
        )


def _identity(data: str, rows: Rows, recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {"name": os.path.abspath(data) if data not in REPOSITORY_OF else data}
    if isinstance(rows, PublishedRows):
        return found | {"repo_id": rows.repo_id, "commit": rows.commit}
    if isinstance(rows, PulledRows):
        return found | {"rows_sha256": sha256_of(rows_path(data))}
    return found | {"idx_sha256": sha256_of(idx_path(data)), "seed": recipe.seed}


def is_same_data(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two identities are of the same rows, wherever these lie."""
    return {k: v for k, v in a.items() if k != "name"} == {k: v for k, v in b.items() if k != "name"}
