"""Line ends of a card, which editors and git may have changed.

Whoever edits a card sees Unix line ends alone.
"""

from __future__ import annotations

from collections.abc import Callable


def in_unix_lines(card: str, edit: Callable[[str], str]) -> str:
    """A card after an edit of its text with Unix line ends; one that is changed has the ends that most lines had."""
    is_crlf = 2 * card.count("\r\n") > card.count("\n")
    before = card.replace("\r\n", "\n")
    if (edited := edit(before)) == before:
        return card
    return edited.replace("\n", "\r\n") if is_crlf else edited
