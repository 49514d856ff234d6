"""Perplexity and divergence of many files in one pass over a text: each window goes through the reference and all files
of a group, and only some numbers of each token are kept.

Knows no file format: models are whatever has logits. Windows are llama-perplexity's: the text is cut into windows of
`context` tokens, and of each the second half is scored (llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.evals.state import Saving, read_state, save_state, windows_of
from pythia_gguf.evals.statistics import comparison, perplexity
from pythia_gguf.kernels.divergence import N_COLUMNS, NLL_REFERENCE, compare
from pythia_gguf.progress import Progress

_SPEED = "speed of "


class LanguageModel(Protocol):
    """What is measured."""

    @property
    def n_vocab(self) -> int:
        """Logits of a row."""

    @property
    def n_context(self) -> int:
        """Longest window."""

    def logits(self, ids: Sequence[int], n_last: int | None = None) -> np.ndarray:
        """f32 [n_last, n_vocab], of the tokens after the last `n_last` ids; may be valid until the next call only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file under one kind of activations.

    name         what tells it from the others, the same in a later run
    label        for people
    open         opens it
    n_bytes      about what it takes in memory
    facts        go into the report as they are
    decode_speed  tokens a second that it writes; None: not wanted
    """

    name: str
    label: str
    open: Callable[[], LanguageModel]
    n_bytes: int
    facts: dict[str, Any]
    decode_speed: Callable[[Any], float] | None = None


def measure(
    reference: Candidate,
    candidates: Sequence[Candidate],
    ids: Sequence[int],
    *,
    context: int,
    n_windows: int | None,
    memory_bytes: int,
    state: Path | None,
    progress: Progress,
    threads: int | None = None,
) -> dict[str, Any]:
    """The part of a report that comes from one text: {"reference": {...}, "files": [...]}.

    ids           of the text
    n_windows     at most so many; None for all
    memory_bytes  that the candidates of a group may take together; the reference is computed again for each group
    state         what is done is kept here every half minute and at the end, and taken up again; None: nowhere
    threads       that compare logits
    Raises        UsageError for a text shorter than two windows, or a context that a model does not have
    """
    if context < 4 or context % 2:
        raise UsageError(Argument("context"), f" must be even and at least 4, got {context}")
    if n_windows is not None and n_windows < 1:
        raise UsageError(Argument("n_windows"), f" must be at least 1, got {n_windows}")
    windows = windows_of(ids, context)[:n_windows]
    if len(windows) * (context // 2 - 1) < 2:
        raise UsageError(
            f"a text of {len(ids)} tokens has no window of {context}: give a longer one, or less ",
            Argument("context"),
        )
    key = _key(reference, windows)
    done = read_state(state, key)
    scored = context // 2 - 1
    rows = {c.name: np.full((len(windows), scored, N_COLUMNS), np.nan) for c in candidates}
    for name, kept in done.items():
        if name in rows and kept.shape == rows[name].shape:
            rows[name] = kept
    progress.stage("measuring", sum(int(np.isnan(r[:, 0, 0]).sum()) for r in rows.values()) * context, "tokens")
    speeds = {c.name: done.get(_SPEED + c.name, np.full(2, np.nan)) for c in candidates}

    def save() -> None:
        save_state(state, key, rows | {_SPEED + name: pair for name, pair in speeds.items()})

    for group in _groups([c for c in candidates if np.isnan(rows[c.name]).any()], memory_bytes):
        _measure_group(reference, group, windows, rows, speeds, progress, save, threads)
    save()
    losses = next(iter(rows.values())).reshape(-1, N_COLUMNS)[:, NLL_REFERENCE]
    ppl, ppl_error = perplexity(losses)
    files = []
    for c in candidates:
        result = c.facts | comparison(rows[c.name].reshape(-1, N_COLUMNS))
        named = zip(("prefill_tokens_per_s", "decode_tokens_per_s"), speeds[c.name].tolist(), strict=True)
        files.append(result | {key: value for key, value in named if value == value})
    return {
        "reference": reference.facts | {"ppl": ppl, "ppl_error": ppl_error},
        "text": {"context": context, "windows": len(windows), "scored_tokens": len(losses)},
        "files": files,
    }


def _measure_group(
    reference: Candidate,
    group: Sequence[Candidate],
    windows: np.ndarray,
    rows: dict[str, np.ndarray],
    speeds: dict[str, np.ndarray],
    progress: Progress,
    save: Callable[[], None],
    threads: int | None,
) -> None:
    """All windows that some candidate of the group lacks."""
    context = windows.shape[1]
    base = reference.open()
    models = {c.name: c.open() for c in group}
    labels = {c.name: c.label for c in group}
    for model in (base, *models.values()):
        if model.n_context < context:
            raise UsageError(Argument("context", context), f" is more than a model's {model.n_context}")
        if model.n_vocab != base.n_vocab:
            raise UsageError(f"{model.n_vocab} logits against the reference's {base.n_vocab}: not the same model")
    spent, n_done = dict.fromkeys(models, 0.0), dict.fromkeys(models, 0)
    saving = Saving(save)
    for i, window in enumerate(windows):
        wanted = [name for name in models if np.isnan(rows[name][i]).any()]
        if not wanted:
            continue
        targets = window[context // 2 + 1 :]
        expected = _scored(base, window)
        for name in wanted:
            started = time.perf_counter()
            logits = _scored(models[name], window)
            spent[name] += time.perf_counter() - started
            n_done[name] += context
            rows[name][i] = compare(expected, logits, targets, threads)
            progress.advance(labels[name], context)
        saving.now_and_then()
    for c in group:
        decode = math.nan if c.decode_speed is None else c.decode_speed(models[c.name])
        speeds[c.name] = np.array([n_done[c.name] / spent[c.name], decode])


def _scored(model: LanguageModel, window: np.ndarray) -> np.ndarray:
    """Logits for the tokens of the second half but its first."""
    half = len(window) // 2
    return model.logits(window.tolist(), n_last=half)[:-1]


def _groups(candidates: Sequence[Candidate], memory_bytes: int) -> list[list[Candidate]]:
    """In order, as many together as fit; at least one."""
    groups: list[list[Candidate]] = []
    room = 0
    for c in candidates:
        if not groups or c.n_bytes > room:
            groups.append([])
            room = memory_bytes
        groups[-1].append(c)
        room -= c.n_bytes
    return groups


def _key(reference: Candidate, windows: np.ndarray) -> str:
    """What kept numbers belong to."""
    return hashlib.sha256(f"{reference.name} {windows.shape}".encode() + windows.tobytes()).hexdigest()
