"""The longest spans of a text that stand in PREFIX.bin, each with its places and sights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.arguments import whole_number
from pythia_gguf.data.finding import Finder, Occurrences, checked_ids
from pythia_gguf.progress import Progress, Silence

MIN_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens start .. end - 1 of a text, which stand in PREFIX.bin; with the token before or behind they do not."""

    start: int
    end: int
    occurrences: Occurrences


def trace(
    finder: Finder,
    ids: Sequence[int],
    *,
    min_tokens: int = MIN_TOKENS,
    limit: int = 1,
    progress: Progress | None = None,
) -> list[Span]:
    """The spans of a text that stand in PREFIX.bin, and in no longer one that does: the longest first.

    min_tokens  of a span
    limit       hits and sights of each
    Raises      UsageError, ModelFileError
    """
    whole_number(1)("min_tokens", min_tokens)
    progress = progress or Silence()
    array = np.array(checked_ids(ids), "<u2")
    progress.stage("tracing", len(array), "tokens")
    found, last_end = [], 0
    for start in range(len(array)):
        # No end comes before that of the span before: what stands there stands there without its first token too.
        end = start + finder.index.longest(array[start:])
        if end > last_end and end - start >= min_tokens:
            found.append((start, end))
        last_end = max(last_end, end)
        progress.advance("", 1)
    found.sort(key=lambda span: (span[0] - span[1], span[0]))
    return [Span(start=s, end=e, occurrences=finder.occurrences(array[s:e].tolist(), limit)) for s, e in found]
