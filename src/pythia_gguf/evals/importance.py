"""An importance matrix of a model: how large the activations are that its matrices multiply, while it reads a text.

Knows no file format of models: a model is whatever shows its activations. What is collected is what llama-imatrix
collects (llama.cpp 0c1e57098, tools/imatrix/imatrix.cpp): squares summed over all tokens of whole windows, for the
matrices of the layers; a window is summed in float32, as there, and windows are added in float64 here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pythia_gguf.errors import Argument, NotFiniteError, UsageError, one_line
from pythia_gguf.evals.state import Saving, read_state, save_state, windows_of
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix
from pythia_gguf.progress import Progress

_LAYERS = "blk."
_DONE = "windows done"


class WatchedModel(Protocol):
    """What activations are collected of."""

    @property
    def n_context(self) -> int:
        """Longest window."""

    def watch(self, ids: Sequence[int], watch: Callable[[str, np.ndarray], None]) -> None:
        """Run ids; `watch` is called with the name of each matrix and what it multiplies, f32 [T, n_columns]."""


def collect(
    model: WatchedModel,
    texts: Sequence[tuple[str, Sequence[int]]],
    *,
    name: str,
    context: int,
    n_windows: int | None,
    state: Path | None,
    progress: Progress,
    tell: Callable[[str], None] = lambda line: None,
) -> ImportanceMatrix:
    """Run texts through a model, window after window.

    texts      name and ids of each; two may have one name
    name       what tells the model from others, the same in a later run
    n_windows  at most so many in all; None for all
    state, tell  as in `measure`; `tell` hears of texts that are not read too, which the matrix does not name
    Raises     UsageError for texts without a whole window, a context that the model does not have, activations that
               are not finite
    """
    if not 1 <= context <= model.n_context:
        raise UsageError(Argument("context"), f" must be between 1 and the model's {model.n_context}, got {context}")
    if n_windows is not None and n_windows < 1:
        raise UsageError(Argument("n_windows"), f" must be at least 1, got {n_windows}")
    of_each = [windows_of(ids, context) for _, ids in texts]
    windows = np.concatenate(of_each)[:n_windows]
    if not len(windows):
        n_tokens = max(len(ids) for _, ids in texts)
        raise UsageError(
            f"a text of {n_tokens} tokens has no window of {context}: give a longer one, or less ",
            Argument("context"),
        )
    key = hashlib.sha256(f"{name} {windows.shape}".encode() + windows.tobytes()).hexdigest()
    datasets = _read([(text, len(own)) for (text, _), own in zip(texts, of_each, strict=True)], len(windows), tell)
    sums = read_state(state, key, tell)
    done = int(sums.pop(_DONE, np.zeros(1, np.int64))[0])

    def watch(matrix: str, x: np.ndarray) -> None:
        if matrix.startswith(_LAYERS):
            squares = np.einsum("tc,tc->c", x, x)
            if not np.isfinite(squares).all():
                raise UsageError(
                    f"window {done + 1}: activations of {one_line(matrix)} are not finite, or their squares are not:"
                    " the model cannot run this text"
                )
            total = sums.setdefault(matrix, np.zeros(x.shape[1], np.float64))
            total += squares

    progress.stage("collecting", (len(windows) - done) * context, "tokens")

    def save() -> None:
        save_state(state, key, sums | {_DONE: np.array([done])})

    saving = Saving(save)
    for window in windows[done:]:
        try:
            model.watch(window.tolist(), watch)
        except NotFiniteError as e:
            raise e.within(f"window {done + 1}") from None
        done += 1
        progress.advance("", context)
        saving.now_and_then()
    save()  # in case that what comes of it cannot be written
    return ImportanceMatrix(
        entries={m: Importance(sums=total.astype(np.float32), count=done * context) for m, total in sums.items()},
        datasets=datasets,
        n_chunks=done,
        chunk_tokens=context,
    )


def _read(texts: Sequence[tuple[str, int]], n_all: int, tell: Callable[[str], None]) -> tuple[str, ...]:
    """Names of the texts, given with their windows, of which some are among the first n_all; `tell` hears of others."""
    names, first = [], 0
    for text, n in texts:
        if n and first < n_all:
            names.append(text)
        else:
            tell(f"{one_line(text)}: not read: it is shorter than a window, or beyond the last")
        first += n
    return tuple(names)
