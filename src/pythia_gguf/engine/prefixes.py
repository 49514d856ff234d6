"""Beginnings that several lists of tokens have in common; a model reads such a beginning once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pythia_gguf.engine.protocol import Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beginning:
    """Tokens, and the sequence that holds their keys and values."""

    ids: list[int]
    seq: int


class KeptBeginnings:
    """Sequences of texts that have come to their end, for texts that begin like them."""

    def __init__(self, sequences: Sequences, n_most: int) -> None:
        """Keep at most so many."""
        self._sequences, self._n_most = sequences, n_most
        self._kept: list[_Beginning] = []  # the one that was used last comes last

    @property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [len(kept.ids) for kept in self._kept]

    def begin(self, ids: Sequence[int], *, more_than: int) -> tuple[int, int]:
        """A new sequence with the longest beginning of `ids` that is kept, and its length.

        It is empty where no more tokens than `more_than` are kept.
        """
        lengths = [n_shared(kept.ids, ids) for kept in self._kept]
        n = max(lengths, default=0)
        if n <= more_than:
            return self._sequences.open(), 0
        used = self._kept.pop(lengths.index(n))
        self._kept.append(used)
        return self._sequences.fork(used.seq, n), n

    def keep(self, seq: int, ids: list[int]) -> None:
        """Take over a sequence that holds these tokens; without tokens, or where others begin with them, close it."""
        if self._n_most == 0 or any(n_shared(kept.ids, ids) == len(ids) for kept in self._kept) or not ids:
            self._sequences.close(seq)
            return
        for kept in [k for k in self._kept if n_shared(k.ids, ids) == len(k.ids)]:
            self._drop(kept)
        if len(self._kept) == self._n_most:
            self.drop_oldest()
        self._kept.append(_Beginning(ids=ids, seq=seq))

    def drop_oldest(self) -> None:
        """Forget the one that was not used for the longest time."""
        self._drop(self._kept[0])

    def _drop(self, kept: _Beginning) -> None:
        self._kept.remove(kept)
        self._sequences.close(kept.seq)


def n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
