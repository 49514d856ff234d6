"""Places of tokens, and rows of training that show them, as JSON and as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythia_gguf.data.finding import Hit, Sight

HIT_HEADER = ("position", "document", "at", "source")
SIGHT_HEADER = ("step", "row", "at", "tokens", "document", "source", "checkpoints")


def hit_json(hit: Hit) -> dict[str, Any]:
    """A place."""
    return {"position": hit.position, "document": hit.document, "offset": hit.offset, "source": hit.source}


def sight_json(sight: Sight, batch: int) -> dict[str, Any]:
    """A row that shows it, with the published checkpoints before and after."""
    from pythia_gguf.data.finding import checkpoints_around

    before, after = checkpoints_around(sight.step, batch)
    told = {"step": sight.step, "row": sight.row, "start": sight.start, "n_tokens": sight.n_tokens}
    return told | {"is_whole": sight.is_whole, "before": before, "after": after} | hit_json(sight.hit)


def hit_row(hit: Hit) -> list[str]:
    """Under HIT_HEADER."""
    document = "-" if hit.document is None else f"{hit.document:,}"
    return [f"{hit.position:,}", document, f"{hit.offset:,}", hit.source or "-"]


def sight_row(sight: Sight, batch: int) -> list[str]:
    """Under SIGHT_HEADER."""
    from pythia_gguf.data.finding import checkpoints_around

    _, document, offset, source = hit_row(sight.hit)
    place = "-" if sight.hit.document is None else f"{document} at {offset}"
    tokens = f"{sight.n_tokens}" if sight.is_whole else f"{sight.n_tokens}, cut"
    before, after = checkpoints_around(sight.step, batch)
    around = f"{before or '-'} .. {after or '-'}"
    return [f"{sight.step:,}", f"{sight.row:,}", f"{sight.start:,}", tokens, place, source, around]
