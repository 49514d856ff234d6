"""Rows of training, wherever they are: documents with an order, rows that were pulled, or the published ones.

Step N is the update that makes checkpoint N of checkpoint N - 1. It sees rows `batch` (N - 1) to `batch` N - 1, counted
from 0.
"""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from pythia_gguf.arguments import whole_number
from pythia_gguf.data.order import OrderedRows, find_orders
from pythia_gguf.data.published import REPOSITORY_OF, PublishedRows
from pythia_gguf.data.pulled import PulledRows, rows_path
from pythia_gguf.data.token_file import idx_path
from pythia_gguf.errors import Argument, StorageError, UsageError, nearest, one_line


class Rows(Protocol):
    """Rows that can be read.

    first_row   the number of the first one, counted from the beginning of training
    n_rows      how many there are
    row_tokens  tokens of a row: one more than the context
    """

    first_row: int
    n_rows: int
    row_tokens: int

    def read_rows(self, first: int, n: int) -> np.ndarray:
        """Rows [n, row_tokens] from a place that counts from `first_row`."""

    def close(self) -> None:
        """No more reads."""


def open_rows(name: str | os.PathLike[str], *, seed: int | None = None, endpoint: str | None = None) -> Rows:
    """The rows of PREFIX, or of a published data set.

    seed    of the order, where PREFIX has several
    Raises  UsageError where there is no order or more than one, StorageError, ModelFileError, NetworkError
    """
    if os.fspath(name) in REPOSITORY_OF:
        if seed is not None:
            raise UsageError(Argument("seed"), " changes nothing: published rows have one order")
        return PublishedRows(os.fspath(name), endpoint)
    if endpoint is not None:
        raise UsageError(Argument("endpoint"), " changes nothing: the rows are on this machine")
    if rows_path(name).is_file():
        if seed is not None:
            raise UsageError(Argument("seed"), " changes nothing: rows that were pulled have one order")
        return PulledRows(name)
    if not idx_path(name).is_file():
        hint = nearest(os.fspath(name), REPOSITORY_OF)
        raise StorageError(f"{one_line(os.fspath(idx_path(name)))}: no such file{hint}")
    order = find_order(name, seed)
    if order is None:
        raise UsageError(f"{one_line(os.fspath(name))} has no order. Make one: pythia data order")
    return OrderedRows(name, *order)


def find_order(name: str | os.PathLike[str], seed: int | None = None) -> tuple[int, int, int] | None:
    """(n_samples, context, seed) of the order of PREFIX, None where it has none.

    seed    of the order, where PREFIX has several
    Raises  UsageError where there is more than one, or none of that seed
    """
    orders = [order for order in find_orders(name) if seed in (None, order[2])]
    if not orders and seed is not None:
        raise UsageError(f"{one_line(os.fspath(name))} has no order of seed {seed}. Make one: pythia data order")
    if len(orders) > 1:
        told = "; ".join(f"{n} rows of {context + 1} tokens, seed {s}" for n, context, s in orders)
        raise UsageError(
            f"{one_line(os.fspath(name))} has several orders: {told}. Choose by ",
            Argument("seed"),
            ", or remove others",
        )
    return orders[0] if orders else None


def read_step(rows: Rows, step: int, batch: int, row: int | None = None) -> tuple[int, np.ndarray]:
    """What a step saw.

    row      one row of the step, from 0 on; None: all
    Returns  the number of the first row in training, and the rows [n, row_tokens]
    Raises   UsageError where the rows of the step are not all there
    """
    whole_number(1, 2**20)("batch", batch)
    first = batch * (step - 1) - rows.first_row
    if step < 1 or first < 0 or first + batch > rows.n_rows:
        least = -(-rows.first_row // batch) + 1
        most = (rows.first_row + rows.n_rows) // batch
        there = f"steps {least} to {most}" if least <= most else "no whole steps"
        raise UsageError(Argument("step"), f": {there} of {batch} rows are there, got {step}")
    if row is not None:
        first, batch = first + int(whole_number(0, batch - 1)("row", row)), 1
    return rows.first_row + first, rows.read_rows(first, batch)
