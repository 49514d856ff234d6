"""Tokens in PREFIX.bin: how often they are there, in which documents, and at which steps training sees them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np

from pythia_gguf.arguments import whole_number, whole_numbers
from pythia_gguf.data.published import REPOSITORY_OF
from pythia_gguf.data.pulled import rows_path
from pythia_gguf.data.rows import find_order
from pythia_gguf.data.sights import OrderedSights, PulledSights
from pythia_gguf.data.sources import Sources
from pythia_gguf.data.suffixes import SuffixIndex
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.hub.suite import MODELS, STEP_SEQUENCES
from pythia_gguf.progress import Progress, Silence

# Of texts that are there more often, the hits and sights are those of so many of their places, not the first of all.
MOST_LOOKED_AT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A place where tokens stand.

    position  in PREFIX.bin, counted in tokens
    document  its number, counted from 0; None where PREFIX holds rows that were pulled
    offset    where in the document, or in the row
    source    of the document; None where it is not known
    """

    position: int
    document: int | None
    offset: int
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A row of training that shows such a place.

    row       counted from the beginning of training
    step      the update that reads the row
    start     where in the row the tokens begin, or go on
    n_tokens  that are in this row
    is_whole  whether that is all of them; if not, they cross the end of a row
    """

    hit: Hit
    row: int
    step: int
    start: int
    n_tokens: int
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrences:
    """What there is of some tokens.

    n_hits   places in PREFIX.bin
    n_whole  rows of training that show them whole, None where not all places were looked at, or there is no order
    n_cut    rows that show a part of them, because they cross the end of a row; None as above
    hits     some of the places: the first in PREFIX.bin
    sights   some of the rows: the first in training; empty without an order
    """

    n_hits: int
    n_whole: int | None
    n_cut: int | None
    hits: list[Hit]
    sights: list[Sight]


class Finder:
    """An open index that answers many questions.

    n_epochs  how often training reads each document; 0 where PREFIX has no order, so that no steps are known
    """

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        *,
        batch: int = STEP_SEQUENCES,
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Open the index of PREFIX, and its order.

        batch     rows of a step
        seed      of the order, where PREFIX has several
        progress  hears of a large order
        Raises    UsageError where there is no index, or more than one order; StorageError, ModelFileError
        """
        self._batch = int(whole_number(1, 2**20)("batch", batch))
        if os.fspath(prefix) in REPOSITORY_OF:
            raise UsageError(
                f"rows of {os.fspath(prefix)} must be on this machine to be searched. Use pythia data pull"
            )
        self._is_pulled = rows_path(prefix).is_file()
        if self._is_pulled and seed is not None:
            raise UsageError(Argument("seed"), " changes nothing: rows that were pulled have one order")
        order = None if self._is_pulled else find_order(prefix, seed)
        with ExitStack() as stack:
            self.index = stack.enter_context(SuffixIndex(prefix))
            self._sources = Sources(prefix)
            stack.callback(self._sources.close)
            sizes = self.index.tokens.sizes()
            self._sights: PulledSights | OrderedSights | None = None
            if self._is_pulled:
                self._sights = PulledSights(prefix, sizes)
            elif order is not None:
                self._sights = OrderedSights(prefix, sizes, order, progress or Silence())
            self._open = stack.pop_all()
        self.n_epochs = 0 if self._sights is None else self._sights.n_epochs

    def close(self) -> None:
        """No more questions; a second call does nothing."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def count(self, ids: Sequence[int]) -> int:
        """How often these tokens stand in PREFIX.bin, inside of documents."""
        return sum(each.last - each.first for each in self.index.find(checked_ids(ids)))

    def hits(self, ids: Sequence[int], limit: int = 100) -> list[Hit]:
        """The first places where they stand."""
        return self.occurrences(ids, limit).hits

    def sights(self, ids: Sequence[int], limit: int = 100) -> list[Sight]:
        """The first rows of training that show them, in the order of training; empty where PREFIX has no order."""
        return self.occurrences(ids, limit).sights

    def occurrences(self, ids: Sequence[int], limit: int = 100) -> Occurrences:
        """Both, and how many there are; raises ModelFileError where a file is damaged."""
        whole_number(0)("limit", limit)
        stretches = self.index.find(checked_ids(ids))
        n_hits = sum(each.last - each.first for each in stretches)
        most = max(1, MOST_LOOKED_AT // max(1, self.n_epochs))
        positions = self.index.positions(stretches, most)
        sequences, offsets = self.index.tokens.sequences_at(positions)

        def hit(i: int) -> Hit:
            document = None if self._is_pulled else int(sequences[i])
            source = None if document is None else self._sources.of(document)
            return Hit(position=int(positions[i]), document=document, offset=int(offsets[i]), source=source)

        hits = [hit(i) for i in range(min(limit, len(positions)))]
        if self._sights is None:
            return Occurrences(n_hits=n_hits, n_whole=None, n_cut=None, hits=hits, sights=[])
        table = self._sights.look(sequences, offsets, len(ids))
        n_whole = int(np.count_nonzero(table.n_tokens == len(ids)))
        sights = [
            Sight(hit=hit(i), row=row, step=row // self._batch + 1, start=start, n_tokens=n, is_whole=n == len(ids))
            for i, row, start, n in zip(*(column[:limit].tolist() for column in table), strict=True)
        ]
        is_all = n_hits == len(positions)
        return Occurrences(
            n_hits=n_hits,
            n_whole=n_whole if is_all else None,
            n_cut=len(table.rows) - n_whole if is_all else None,
            hits=hits,
            sights=sights,
        )


def checkpoints_around(step: int, batch: int = STEP_SEQUENCES) -> tuple[str | None, str | None]:
    """Names of the published checkpoints before and after an update, as ("step512", "step1000"); None: there is none.

    With 2,048 rows an update these are the checkpoints of the three models of version 0 that had so many, whose names
    count twice.
    """
    model = MODELS["pythia-410m-v0" if batch == 2 * STEP_SEQUENCES else "pythia-410m"]
    updates = [model.step(n) for n in model.steps]
    before = [each for each in updates if each.iteration < step]
    after = [each for each in updates if each.iteration >= step]
    return f"step{before[-1].n}" if before else None, f"step{after[0].n}" if after else None


def checked_ids(ids: Sequence[int]) -> list[int]:
    """Tokens as plain numbers; raises UsageError where they cannot be any."""
    found = whole_numbers("ids", ids)
    if not found or not 0 <= min(found) <= max(found) < 1 << 16:
        raise UsageError(Argument("ids"), " must be one or more numbers from 0 to 65535")
    return found
