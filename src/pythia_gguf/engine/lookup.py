"""Drafts from the text so far: the tokens that followed the last time that the newest tokens appeared.

This is prompt lookup decoding (Saxena, 2023). A wrong draft costs time and changes nothing, so a run of wrong ones
makes the next attempts rarer and shorter.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_MATCH = 4
SHORTEST_MATCH = 2
MOST_DRAFTS = 7
# After a wrong draft so many tokens pass without one, then twice as many, up to this number.
LONGEST_PAUSE = 64


class Drafts:
    """An index of a growing text, and how well its drafts have done."""

    def __init__(self, ids: Sequence[int]) -> None:
        """Index a prompt."""
        self._ids: list[int] = []
        # For each run of tokens: the place after its last appearance.
        self._after: dict[tuple[int, ...], int] = {}
        self._pause, self._wait = 1, 0
        for i in ids:
            self.add(i)

    def add(self, i: int) -> None:
        """Add one token to the text."""
        for n in range(SHORTEST_MATCH, LONGEST_MATCH + 1):
            if len(self._ids) >= n:
                self._after[tuple(self._ids[-n:])] = len(self._ids)
        self._ids.append(i)

    def learn(self, n_drafted: int, n_right: int) -> None:
        """Hear how many tokens of the last draft were right."""
        if n_drafted == 0:
            self._wait = max(0, self._wait - 1)
        elif 2 * n_right >= n_drafted:
            self._pause, self._wait = 1, 0
        else:
            self._wait = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def draft(self, n_most: int) -> list[int]:
        """Guess at most so many next tokens, by the longest run of newest tokens that appeared before; often none."""
        if self._wait:
            return []
        for n in range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1):
            at = self._after.get(tuple(self._ids[-n:])) if len(self._ids) >= n else None
            if at is not None:
                return self._ids[at : at + min(n_most, MOST_DRAFTS)] if n_most > 0 else []
        return []
