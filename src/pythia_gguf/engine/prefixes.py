"""Beginnings that several texts have in common; a model reads such a beginning once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pythia_gguf.engine.logprobs import TokenLogprob
from pythia_gguf.engine.protocol import Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Tokens, and the sequence that has their keys and values.

    scores  how likely each token but the first is, as far as somebody has asked for that
    n_top   most likely tokens that each score tells
    """

    ids: list[int]
    seq: int
    scores: Sequence[TokenLogprob] = ()
    n_top: int = 0


class KeptBeginnings:
    """Sequences of texts that have come to their end, for texts that begin like them."""

    def __init__(self, sequences: Sequences, n_most: int) -> None:
        """Keep at most so many."""
        self._sequences, self._n_most = sequences, n_most
        self._kept: list[Beginning] = []  # the one that was used last comes last

    @property
    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [len(kept.ids) for kept in self._kept]

    def longest(self, ids: Sequence[int], n_top: int | None) -> tuple[Beginning | None, int]:
        """What has most tokens for `ids`, as `n_usable` counts them, and how many; None where none has any.

        n_top  the scores of `ids` are wanted, with so many most likely tokens; None: they are not
        """
        counts = [n_usable(k.ids, ids, n_scores(len(k.scores), k.n_top, n_top)) for k in self._kept]
        n = max(counts, default=0)
        return (self._kept[counts.index(n)], n) if n else (None, 0)

    def use(self, kept: Beginning, n_tokens: int) -> int:
        """A new sequence with the first tokens of what is kept."""
        self._kept.remove(kept)
        self._kept.append(kept)
        return self._sequences.fork(kept.seq, n_tokens)

    def keep(self, new: Beginning) -> None:
        """Take over a sequence. Of two that begin alike the longer one stays, with the better scores of both."""
        for kept in list(self._kept):
            if n_shared(kept.ids, new.ids) == min(len(kept.ids), len(new.ids)):
                longer, shorter = (kept, new) if len(kept.ids) >= len(new.ids) else (new, kept)
                better = max(kept, new, key=lambda each: (len(each.scores), each.n_top))
                self._kept.remove(kept)
                self._sequences.close(shorter.seq)
                new = replace(longer, scores=better.scores, n_top=better.n_top)
        if self._n_most == 0 or not new.ids:
            self._sequences.close(new.seq)
            return
        if len(self._kept) == self._n_most:
            self.drop_oldest()
        self._kept.append(new)

    def drop_oldest(self) -> None:
        """Forget the one that was not used for the longest time."""
        self._sequences.close(self._kept.pop(0).seq)


def n_usable(held: Sequence[int], ids: Sequence[int], n_scores: int | None) -> int:
    """Tokens at the beginning of `ids` that need not be read again where others are held; the last always must.

    n_scores  the scores of `ids` are wanted, and those of so many held tokens but the first are there; None: not wanted
    """
    n = n_shared(held, ids)
    # The row after a token is the score of the next one, so that one must be the same, too.
    return min(n, len(ids) - 1) if n_scores is None else max(0, min(n - 1, n_scores))


def n_scores(n: int, n_top: int, n_top_wanted: int | None) -> int | None:
    """How many of n scores are of use; None where none are wanted."""
    if n_top_wanted is None:
        return None
    return n if n_top >= n_top_wanted else 0


def n_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
