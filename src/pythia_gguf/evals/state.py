"""Long runs over a text: its windows, and finished work that is kept on disk, so that a killed run goes on.

Where the state of an earlier run cannot be used, the run starts afresh and never fails: the file begins with a hash of
everything that follows, so damage of any kind is noticed before a byte of it is believed.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from pythia_gguf.errors import PythiaGGUFError, one_line
from pythia_gguf.files import read_whole, write_all, write_beside
from pythia_gguf.tokenizer import TextTokenizer

_SAVED_EVERY_S = 30.0
_MAGIC = b"pythia-gguf state 1\n"
_HEAD_BYTES = len(_MAGIC) + 32


def text_ids(tokenizer: TextTokenizer, text: str, context: int) -> list[int]:
    """The tokens of a text that is cut into windows of `context`.

    Where the model wants its begin token before every text, each window has it in place of its own first token, as in
    llama.cpp 0c1e57098, tools/perplexity and tools/imatrix; an end token is put nowhere.
    """
    ids = tokenizer.encode(text, special=False)
    begin = tokenizer.special.begin
    if tokenizer.special.adds_begin and begin is not None:
        ids = [begin, *ids]
        ids[::context] = [begin] * len(ids[::context])
    return ids


def windows_of(ids: Sequence[int], context: int) -> np.ndarray:
    """A text's tokens cut into whole windows: i64 [n, context]; the rest at the end is not used."""
    return np.asarray(ids[: len(ids) // context * context], np.int64).reshape(-1, context)


def state_path(out: Path) -> Path:
    """The file in which a run keeps its unfinished result."""
    return out.with_name(f".{out.name}.partial.npz")


def state_key(windows: np.ndarray, *decides: object) -> str:
    """A text that says what kept numbers belong to: windows, this version, and all else that decides them."""
    facts = (metadata.version("pythia-gguf"), windows.shape, *decides)
    return hashlib.sha256(repr(facts).encode() + windows.tobytes()).hexdigest()


def read_state(state: Path | None, key: str, tell: Callable[[str], None] = lambda line: None) -> dict[str, np.ndarray]:
    """Kept arrays by name; none where the file is damaged or belongs to something else, which `tell` reports."""
    if state is None or not state.is_file():
        return {}
    try:
        kept_key, kept = _arrays(read_whole(state))
    except (PythiaGGUFError, ValueError, KeyError) as e:
        tell(f"{one_line(str(state))}: what an earlier run left cannot be read ({type(e).__name__}): starting afresh")
        return {}
    if kept_key != key:
        tell(f"{one_line(str(state))}: what an earlier run left is of something else: starting afresh")
        return {}
    return kept


def save_state(state: Path | None, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under the key of what they belong to; None: nowhere."""
    if state is not None:
        rows = {f"rows_{i}": r for i, r in enumerate(arrays.values())}
        content = io.BytesIO()
        np.savez(content, key=np.array(key), names=np.array(list(arrays)), **rows)  # type: ignore[arg-type]
        with write_beside(state) as out:
            write_all(out, _MAGIC + hashlib.sha256(content.getbuffer()).digest())
            write_all(out, content.getbuffer())


def _arrays(data: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """The key and the arrays in a file; raises ValueError unless the file is as `save_state` wrote it."""
    content = memoryview(data)[_HEAD_BYTES:]
    if data[:_HEAD_BYTES] != _MAGIC + hashlib.sha256(content).digest():
        raise ValueError("damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        return str(kept["key"]), {str(name): kept[f"rows_{i}"] for i, name in enumerate(kept["names"])}


class SaveTimer:
    """Calls a function when half a minute has gone by since it last did."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save, self._saved = save, time.monotonic()

    def now_and_then(self) -> None:
        """To be called after each piece of work."""
        if time.monotonic() - self._saved > _SAVED_EVERY_S:
            self._save()
            self._saved = time.monotonic()
