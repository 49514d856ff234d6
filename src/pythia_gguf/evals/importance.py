"""An importance matrix of a model: how large the activations are that its matrices multiply, while it reads a text.

A model is anything that shows its activations. What is collected is what llama-imatrix collects (llama.cpp 0c1e57098,
tools/imatrix/imatrix.cpp): squares summed over all tokens of whole windows, for the matrices of the layers; a window is
summed in float32, as there, and windows are added in float64 here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pythia_gguf.errors import Argument, NotFiniteError, UsageError, one_line
from pythia_gguf.evals.state import SaveTimer, read_state, save_state, state_key, windows_of
from pythia_gguf.gguf.fingerprint import fingerprint, vectors_of
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, MatrixRun, TextRead
from pythia_gguf.progress import Progress

if TYPE_CHECKING:
    from pythia_gguf.engine.model import Model

_LAYERS = "blk."
_DONE = "windows done"


class WatchedModel(Protocol):
    """A model that shows its activations."""

    @property
    def n_context(self) -> int:
        """Longest window."""

    def watch(self, ids: Sequence[int], watch: Callable[[str, np.ndarray], None]) -> None:
        """Run ids; `watch` is called with the name of each matrix and what it multiplies, f32 [T, n_columns]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToRead:
    """A text as the model's tokens; two may have one name."""

    file: str
    sha256: str
    ids: Sequence[int]


def run_of(model: Model) -> MatrixRun:
    """The facts of a loaded model that a matrix is collected from; no text yet."""
    return MatrixRun(
        tool_version=metadata.version("pythia-gguf"),
        file=model.path.name,
        sha256=model.gguf.sha256(),
        model=fingerprint(vectors_of(model.gguf)),
        activations=model.activations,
        gelu=model.gelu,
        kv=model.cache,
        context=0,
        windows=0,
        texts=(),
    )


def collect(
    model: WatchedModel,
    texts: Sequence[TextToRead],
    *,
    of: MatrixRun,
    context: int,
    n_windows: int | None,
    state: Path | None,
    progress: Progress,
    tell: Callable[[str], None] = lambda line: None,
) -> ImportanceMatrix:
    """Run texts through a model, window after window.

    of         the model and how it is run; context, windows and texts are filled in here
    n_windows  at most so many in all; None for all
    state, tell  as in `measure`; `tell` also reports texts that are not read, which the matrix does not name
    Raises     UsageError for texts without a whole window, a context that the model does not have, activations that
               are not finite
    """
    if not 1 <= context <= model.n_context:
        raise UsageError(Argument("context"), f" must be between 1 and the model's {model.n_context}, got {context}")
    if n_windows is not None and n_windows < 1:
        raise UsageError(Argument("n_windows"), f" must be at least 1, got {n_windows}")
    of_each = [windows_of(text.ids, context) for text in texts]
    windows = np.concatenate(of_each)[:n_windows]
    if not len(windows):
        raise UsageError(
            f"a text of {max(len(t.ids) for t in texts)} tokens has no window of {context}: give a longer one or less ",
            Argument("context"),
        )
    key = state_key(windows, of)
    read = _read(texts, [len(own) for own in of_each], len(windows), tell)
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

    saving = SaveTimer(save)
    for window in windows[done:]:
        try:
            model.watch(window.tolist(), watch)
        except NotFiniteError as e:
            raise e.within(f"window {done + 1}") from None
        done += 1
        progress.advance("", context)
        saving.now_and_then()
    save()  # in case the result cannot be written
    return ImportanceMatrix(
        entries={m: Importance(sums=total.astype(np.float32), count=done * context) for m, total in sums.items()},
        datasets=tuple(text.file for text in read),
        n_chunks=done,
        chunk_tokens=context,
        runs=(replace(of, context=context, windows=done, texts=read),),
    )


def _read(
    texts: Sequence[TextToRead], n_windows: Sequence[int], n_all: int, tell: Callable[[str], None]
) -> tuple[TextRead, ...]:
    """The texts with at least one window among the first n_all; `tell` reports the others."""
    read, first = [], 0
    for text, n in zip(texts, n_windows, strict=True):
        if n and first < n_all:
            read.append(TextRead(file=text.file, sha256=text.sha256))
        else:
            tell(f"{one_line(text.file)}: not read: it is shorter than a window, or beyond the last")
        first += n
    return tuple(read)
