"""Logits of one window of text after another, always in the same memory: fresh pages would cost a tenth of the time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Engine, Part


class Windows(ProcessBound):
    """A model that forgets each text before the next.

    model      as loaded
    n_vocab    logits of a row
    n_context  longest window
    """

    def __init__(self, model: Engine, n_context: int) -> None:
        """Take room for windows of at most so many tokens, and no more than the model's context."""
        self.model, self.n_vocab, self.n_context = model, model.n_vocab, min(n_context, model.n_context)
        self._session = model.sequences(n_context=self.n_context)
        self._seq = self._session.open()
        self._room = self._session.room_for(0)

    def logits(self, ids: Sequence[int], n_last: int | None = None) -> np.ndarray:
        """As `Model.logits`; the result is valid until the next call."""
        n_wanted = len(ids) if n_last is None else n_last
        if len(self._room) < n_wanted:
            self._room = self._session.room_for(n_wanted)
        self._session.truncate(self._seq, 0)
        return self._session.step([Part(seq=self._seq, ids=ids, n_wanted=n_wanted)], self._room)
