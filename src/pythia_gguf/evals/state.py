"""Long runs over a text: its windows, and what is done kept on disk, so that a killed run goes on.

Knows neither models nor what the numbers mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pythia_gguf.errors import StorageError, one_line
from pythia_gguf.files import write_beside

_SAVED_EVERY_S = 30.0


def windows_of(ids: Sequence[int], context: int) -> np.ndarray:
    """A text's tokens cut into whole windows: i64 [n, context]; what is left over at the end is not used."""
    return np.asarray(ids[: len(ids) // context * context], np.int64).reshape(-1, context)


def state_path(out: Path) -> Path:
    """Where a run keeps what it has of a result."""
    return out.with_name(f".{out.name}.partial.npz")


def read_state(state: Path | None, key: str) -> dict[str, np.ndarray]:
    """Kept arrays by name; none where they belong to something else. Raises StorageError for a damaged file."""
    if state is None or not state.is_file():
        return {}
    try:
        with np.load(state, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                return {}
            return {str(name): kept[f"rows_{i}"] for i, name in enumerate(kept["names"])}
    except (OSError, ValueError, KeyError) as e:
        raise StorageError(f"{one_line(str(state))}: cannot go on from it ({type(e).__name__}). Delete it") from e


def save_state(state: Path | None, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under the key of what they belong to; None: nowhere."""
    if state is not None:
        rows = {f"rows_{i}": r for i, r in enumerate(arrays.values())}
        with write_beside(state) as out:
            np.savez(out, key=np.array(key), names=np.array(list(arrays)), **rows)  # type: ignore[arg-type]


class Saving:
    """Calls a function when half a minute has gone by since it last did."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save, self._saved = save, time.monotonic()

    def now_and_then(self) -> None:
        """After each piece of work."""
        if time.monotonic() - self._saved > _SAVED_EVERY_S:
            self._save()
            self._saved = time.monotonic()
