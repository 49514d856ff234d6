"""Perplexity and divergence of many files in one pass over a text: each window goes through the reference and all files
of a group, and only some numbers of each token are kept.

A model is anything that has logits. Windows are llama-perplexity's: the text is cut into windows of `context` tokens,
and the second half of each is scored (llama.cpp 0c1e57098, tools/perplexity/perplexity.cpp).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pythia_gguf.errors import Argument, NotFiniteError, UsageError
from pythia_gguf.evals.state import SaveTimer, read_state, save_state, state_key, windows_of
from pythia_gguf.evals.statistics import comparison, overflow, perplexity
from pythia_gguf.kernels.divergence import N_COLUMNS, NLL_CANDIDATE, NLL_REFERENCE, compare
from pythia_gguf.progress import Progress

_SPEED = "speed of "


class LanguageModel(Protocol):
    """A model that can be measured."""

    @property
    def n_vocab(self) -> int:
        """Logits of a row."""

    @property
    def n_context(self) -> int:
        """Longest window."""

    def logits(self, ids: Sequence[int], n_last: int | None = None) -> np.ndarray:
        """f32 [n_last, n_vocab] of the tokens after the last `n_last` ids; valid perhaps only until the next call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file under one kind of activations.

    name         everything that decides its numbers, the same in a later run
    label        its name for people
    open         opens it
    n_bytes      memory that it takes, roughly
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
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The part of a report that comes from one text: {"reference": {...}, "text": {...}, "files": [...]}.

    ids           of the text
    n_windows     at most so many; None for all
    memory_bytes  that candidates may take together; where they do not fit, they go in groups, and the reference is
                  computed again for each
    state         finished work is kept here every half minute and at the end, and taken up again; None: nowhere
    threads       number of threads that compare logits
    tell          hears one line about an earlier run that cannot be used, and about groups
    A file whose logits are not finite has None for its figures, and in "missing" what happened.
    Raises        UsageError for a text in which fewer than two tokens are scored, or a context that a model does not
                  have; NotFiniteError when logits of the reference are not
    """
    windows = scored_windows(ids, context, n_windows)
    key = state_key(windows, reference.name)
    done = read_state(state, key, tell)
    scored = context // 2 - 1
    run = _Run(windows, threads, progress, lambda: save_state(state, key, run.kept()))
    for c in candidates:
        run.rows[c.name] = _kept(done, c.name, (len(windows), scored, N_COLUMNS))
        run.speeds[c.name] = _kept(done, _SPEED + c.name, (2,))
    # Copies of one file, run alike, are measured once.
    unfinished = list({c.name: c for c in candidates if _is_open(run.rows[c.name]).any()}.values())
    n_open = sum(int(_is_open(run.rows[c.name]).sum()) for c in unfinished)
    progress.stage("measuring", n_open * context, "tokens")
    groups = _groups(unfinished, memory_bytes)
    if len(groups) > 1:
        tell(
            f"memory holds the reference and {len(groups[0])} of {len(unfinished)} files: the reference is computed"
            f" {len(groups)} times"
        )
    if groups:
        base = reference.open()
        for group in groups:
            run.measure(reference, base, group)
    run.save()
    return _report(reference, candidates, run)


def scored_windows(ids: Sequence[int], context: int, n_windows: int | None) -> np.ndarray:
    """i64 [n, context]; raises UsageError where fewer than two tokens of them are scored."""
    if context < 4 or context % 2:
        raise UsageError(Argument("context"), f" must be even and at least 4, got {context}")
    if n_windows is not None and n_windows < 1:
        raise UsageError(Argument("n_windows"), f" must be at least 1, got {n_windows}")
    whole = windows_of(ids, context)
    windows = whole[:n_windows]
    if not len(windows):
        raise UsageError(
            f"a text of {len(ids)} tokens has no window of {context}: give a longer one, or less ",
            Argument("context"),
        )
    if len(windows) * (context // 2 - 1) < 2:
        more: tuple[str | Argument, ...] = (", or more ", Argument("n_windows"))
        raise UsageError(
            "two scored tokens are needed, and one window of 4 has one: give at least 6 for ",
            Argument("context"),
            more if len(whole) > 1 else ", or a longer text",
        )
    return windows


class _Run:
    """The numbers so far, and how to compute the rest.

    rows    name of a candidate -> f64 [n_windows, n_scored, N_COLUMNS]; NaN in windows that are not done
    speeds  name of a candidate -> f64 [2]: tokens a second that it reads and writes; NaN: not known
    broken  name of a candidate -> what is wrong with its logits
    """

    def __init__(self, windows: np.ndarray, threads: int | None, progress: Progress, save: Callable[[], None]) -> None:
        self.windows, self.save = windows, save
        self._threads = threads
        self.rows: dict[str, np.ndarray] = {}
        self.speeds: dict[str, np.ndarray] = {}
        self.broken: dict[str, str] = {}
        self._progress = progress
        self._spent: dict[str, float] = {}
        self._n_read: dict[str, int] = {}

    def kept(self) -> dict[str, np.ndarray]:
        """Everything that a later run can use."""
        return self.rows | {_SPEED + name: pair for name, pair in self.speeds.items()}

    def measure(self, reference: Candidate, base: LanguageModel, group: Sequence[Candidate]) -> None:
        """Measure all windows that some candidate of the group lacks."""
        context = self.windows.shape[1]
        models = {c.name: c.open() for c in group}
        # 1. Models that do not fit the windows or the reference are refused before hours of work.
        for model in (base, *models.values()):
            if model.n_context < context:
                raise UsageError(Argument("context", context), f" is more than a model's {model.n_context}")
            if model.n_vocab != base.n_vocab:
                raise UsageError(f"{model.n_vocab} logits against the reference's {base.n_vocab}: not the same model")
        # 2. The reference reads a window once for the whole group, and only if an earlier run has not finished it.
        #    Logits of a window take 50 MB, so only a few numbers of each token are kept.
        saving = SaveTimer(self.save)
        for i, window in enumerate(self.windows):
            wanted = [c for c in group if c.name not in self.broken and _is_open(self.rows[c.name])[i]]
            if not wanted:
                continue
            expected = _scored(base, window)
            if not np.isfinite(expected).all():
                raise NotFiniteError(f"window {i + 1}: logits are not finite", path=_file(reference))
            for c in wanted:
                self._measure_window(c, models[c.name], i, expected)
            saving.now_and_then()
        # 3. The speed of writing is measured on its own, after all windows: a killed run has lost none of them for it.
        for c in group:
            read = self._n_read[c.name] / self._spent[c.name] if self._n_read.get(c.name) else math.nan
            has_speed = c.decode_speed is not None and c.name not in self.broken
            self.speeds[c.name] = np.array([read, c.decode_speed(models[c.name]) if has_speed else math.nan])  # type: ignore[misc]

    def _measure_window(self, candidate: Candidate, model: LanguageModel, i: int, expected: np.ndarray) -> None:
        window, name = self.windows[i], candidate.name
        started = time.perf_counter()
        try:
            logits = _scored(model, window)
        except NotFiniteError as e:
            self._give_up(candidate, f"window {i + 1}: infinity or NaN at position {e.position}")
            return
        self._spent[name] = self._spent.get(name, 0.0) + time.perf_counter() - started
        self._n_read[name] = self._n_read.get(name, 0) + len(window)
        rows = compare(expected, logits, window[len(window) // 2 + 1 :], self._threads)
        if np.isfinite(rows[:, NLL_CANDIDATE]).all():
            self.rows[name][i] = rows
            self._progress.advance(candidate.label, len(window))
        else:
            self._give_up(candidate, f"window {i + 1}: logits are not finite")

    def _give_up(self, candidate: Candidate, why: str) -> None:
        self.broken[candidate.name] = why
        n_left = int(_is_open(self.rows[candidate.name]).sum())
        self._progress.advance(candidate.label, self.windows.shape[1] * n_left)


def _kept(done: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of an earlier run, where they have the right form."""
    kept = done.get(name)
    is_right = kept is not None and kept.dtype == np.float64 and kept.shape == shape
    return kept if is_right and kept is not None else np.full(shape, np.nan)


def _is_open(rows: np.ndarray) -> np.ndarray:
    """bool [n_windows]: which windows are not done."""
    return np.isnan(rows[:, :, NLL_REFERENCE]).any(axis=1)


def _file(candidate: Candidate) -> str:
    return str(candidate.facts.get("file", candidate.label))


def _report(reference: Candidate, candidates: Sequence[Candidate], run: _Run) -> dict[str, Any]:
    files = []
    for c in candidates:
        result = c.facts | comparison(run.rows[c.name].reshape(-1, N_COLUMNS))
        if c.name in run.broken:
            result["missing"] = run.broken[c.name]
        named = zip(("prefill_tokens_per_s", "decode_tokens_per_s"), run.speeds[c.name].tolist(), strict=True)
        files.append(result | {key: value for key, value in named if value == value})
    finished = [r for r in run.rows.values() if not _is_open(r).any()]
    base: dict[str, Any] = {"ppl": None, "ppl_error": None, "missing": "no file was measured to the end"}
    if finished:
        losses = finished[0].reshape(-1, N_COLUMNS)[:, NLL_REFERENCE]
        ppl, ppl_error = perplexity(losses)
        base = {"ppl": ppl, "ppl_error": ppl_error} | ({} if ppl is not None else {"missing": overflow(losses)})
    n_windows, context = run.windows.shape
    return {
        "reference": reference.facts | base,
        "text": {"context": context, "windows": n_windows, "scored_tokens": n_windows * (context // 2 - 1)},
        "files": files,
    }


def _scored(model: LanguageModel, window: np.ndarray) -> np.ndarray:
    """Logits for the tokens of the second half, except for its first."""
    half = len(window) // 2
    return model.logits(window.tolist(), n_last=half)[:-1]


def _groups(candidates: Sequence[Candidate], memory_bytes: int) -> list[list[Candidate]]:
    """The candidates in groups, in order, as many together as fit in memory and at least one."""
    groups: list[list[Candidate]] = []
    room = 0
    for c in candidates:
        if not groups or c.n_bytes > room:
            groups.append([])
            room = memory_bytes
        groups[-1].append(c)
        room -= c.n_bytes
    return groups
