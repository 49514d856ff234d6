"""Line ends of a card, which editors and git may have changed.

Code that edits a card sees only Unix line ends.
"""

from __future__ import annotations

from collections.abc import Callable


def in_unix_lines(card: str, edit: Callable[[str], str]) -> str:
    """A card after an edit of its text with Unix line ends; a changed card has the ends that most of its lines had."""
    is_crlf = 2 * card.count("\r\n") > card.count("\n")
    before = card.replace("\r\n", "\n")
    if (edited := edit(before)) == before:
        return card
    return edited.replace("\n", "\r\n") if is_crlf else edited
