"""Writes several texts side by side: each step of the model takes all of them along.

Texts join and leave at any step, and none waits long for another, because a long prompt is read in slices, and a
beginning that prompts have in common is read once. Each text comes out as it would alone, to the bit of its
log-probabilities: the logits of a sequence do not depend on what else is in a step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.engine.prefixes import n_shared
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Engine, Part
from pythia_gguf.engine.sampling import room_for
from pythia_gguf.engine.writing import Writing
from pythia_gguf.errors import UsageError

# A step that also writes reads at most so many tokens of prompts: that takes about as long as a few steps without them.
_SLICE_TOKENS = 64
# Shorter beginnings are not worth waiting for.
_LEAST_SHARED = 32
# `write_all` runs at most so many texts side by side, with so much memory for their keys and values.
_MOST_TEXTS = 32
_KV_BYTES = 1 << 30


@dataclass(slots=True, kw_only=True, eq=False)
class _Member:
    """A text that has a sequence.

    prompt    tokens that its sequence begins with
    to_read   tokens that the model must still read before the text can take its logits
    leader    another text, which reads the first `n_shared` tokens of the prompt for both; None once they are there
    """

    writing: Writing
    seq: int
    prompt: list[int]
    to_read: list[int]
    leader: _Member | None
    n_shared: int

    @property
    def is_prompt(self) -> bool:
        """Whether it must read more than the tokens that it has just written."""
        return self.writing.n_wanted < len(self.to_read)


class Batch(ProcessBound):
    """Texts over one set of sequences.

    n_sequences  at most so many texts are written at a time; others wait in the order in which they came
    n_context    a text has at most so many tokens
    kv_bytes     limit for the keys and values of the texts that are being written; None: no limit
    """

    def __init__(
        self, model: Engine, n_sequences: int = 1, n_context: int | None = None, kv_bytes: int | None = None
    ) -> None:
        """Raises UsageError when the sequences do not fit into memory."""
        self._model, self._sequences = model, model.sequences(n_sequences, n_context, kv_bytes=kv_bytes)
        self.n_sequences, self.n_context, self.kv_bytes = n_sequences, self._sequences.n_context, kv_bytes
        self._waiting: deque[Writing] = deque()
        self._members: list[_Member] = []
        self._logits = self._sequences.room_for(n_sequences)
        self._room = room_for(model.n_vocab)

    def __len__(self) -> int:
        """Texts in it, including those that wait."""
        return len(self._members) + len(self._waiting)

    def insert(self, writing: Writing) -> None:
        """Add a text; it begins with the next step that has room for it. Raises UsageError if none ever will."""
        if writing.n_positions > self.n_context:
            raise UsageError(f"{writing.n_positions} tokens do not fit into a batch of {self.n_context} each")
        if self.kv_bytes is not None and (needed := self._needed(writing)) > self.kv_bytes:
            raise UsageError(
                f"keys and values of {writing.n_positions} tokens take {needed:,} bytes, and all texts together may"
                f" take {self.kv_bytes:,}"
            )
        self._waiting.append(writing)

    def remove(self, writing: Writing) -> None:
        """Take a text out before it has come to its end; raises ValueError when it is not in the batch."""
        if writing in self._waiting:
            self._waiting.remove(writing)
            return
        member = next((m for m in self._members if m.writing is writing), None)
        if member is None:
            raise ValueError("the batch has no such text: it has ended, or was never in it")
        self._leave(member)

    def step(self) -> list[tuple[Writing, list[str]]]:
        """Run one step of the model; returns each text that went on, with its new pieces. Texts that have ended leave.

        The list is empty when the whole step went into prompts. Raises as `Sequences.step`; then no text has changed.
        """
        # 1. Give waiting texts a sequence, as far as there is room, and the beginnings that other texts have read.
        self._admit()
        self._take_beginnings()
        # 2. Texts that are being written go first, each with one token and its draft, because users watch them grow.
        #    Prompts share the rest of the step.
        parts = self._parts()
        if not parts:
            return []
        # 3. Run the model. A text takes its rows only when all its tokens are read; a prompt may need several steps.
        rows, at, went_on = self._run([part for _, part in parts]), 0, []
        for member, part in parts:
            member.to_read = member.to_read[len(part.ids) :]
        # Before a text can leave, texts that begin like it take over the tokens that it has read.
        self._take_beginnings()
        for member, part in parts:
            if not member.to_read:
                pieces = member.writing.take(rows[at : at + part.n_wanted], self._room)
                at += part.n_wanted
                went_on.append((member.writing, pieces))
                self._go_on(member)
        return went_on

    def _admit(self) -> None:
        while self._waiting and len(self._members) < self.n_sequences:
            if self.kv_bytes is not None:
                taken = sum(self._needed(member.writing) for member in self._members)
                if taken + self._needed(self._waiting[0]) > self.kv_bytes:
                    return
            writing, seq = self._waiting.popleft(), self._sequences.open()
            prompt = writing.next_ids
            leader, n = self._leader(prompt)
            member = _Member(writing=writing, seq=seq, prompt=prompt, to_read=prompt, leader=leader, n_shared=n)
            self._members.append(member)

    def _leader(self, prompt: list[int]) -> tuple[_Member | None, int]:
        """The text whose prompt shares the longest beginning with this one, and the length of that beginning.

        The last token of a prompt is never shared, because each text needs the logits after it.
        """
        lengths = [n_shared(member.prompt, prompt[:-1]) for member in self._members]
        longest = max(lengths, default=0)
        return (self._members[lengths.index(longest)], longest) if longest >= _LEAST_SHARED else (None, 0)

    def _take_beginnings(self) -> None:
        """Let texts that wait for a beginning take it over once it is read; if it never will be, they read it."""
        for member in self._members:
            if (leader := member.leader) is None:
                continue
            if leader not in self._members or len(leader.prompt) < member.n_shared:
                member.leader = None
            elif self._sequences.length(leader.seq) >= member.n_shared:
                self._sequences.close(member.seq)
                member.seq = self._sequences.fork(leader.seq, member.n_shared)
                member.to_read, member.leader = member.prompt[member.n_shared :], None

    def _parts(self) -> list[tuple[_Member, Part]]:
        members = [m for m in self._members if m.leader is None]
        parts = [(m, self._part(m, len(m.to_read))) for m in members if not m.is_prompt]
        room = min(_SLICE_TOKENS, self._sequences.n_slice) if parts else self._sequences.n_slice
        for member in (m for m in members if m.is_prompt):
            if room > 0:
                n = min(room, len(member.to_read))
                parts.append((member, self._part(member, n)))
                room -= n
        return parts

    def _part(self, member: _Member, n: int) -> Part:
        """The next n tokens of a text; it wants logits only after the last tokens that it has to read."""
        is_last = n == len(member.to_read)
        return Part(seq=member.seq, ids=member.to_read[:n], n_wanted=member.writing.n_wanted if is_last else 0)

    def _run(self, parts: list[Part]) -> np.ndarray:
        n_rows = sum(part.n_wanted for part in parts)
        if len(self._logits) < n_rows:
            self._logits = self._sequences.room_for(n_rows)
        return self._sequences.step(parts, self._logits)

    def _go_on(self, member: _Member) -> None:
        """Let a text that has taken its logits leave, or make its sequence ready for its next step."""
        if member.writing.finish_reason is not None:
            self._leave(member)
            return
        self._sequences.truncate(member.seq, member.writing.n_kept)
        if member.writing.n_kept == 0:  # the context was full: the sequence begins with other tokens now
            member.prompt = []
        member.to_read = member.writing.next_ids

    def _leave(self, member: _Member) -> None:
        self._members.remove(member)
        self._sequences.close(member.seq)

    def _needed(self, writing: Writing) -> int:
        return self._model.kv_bytes(writing.n_positions)


def write_all(model: Engine, writings: Sequence[Writing], advance: Callable[[], None] = lambda: None) -> None:
    """Write texts to their end, many side by side; `advance` is called as each ends.

    Raises  UsageError when the longest does not fit into memory, NotFiniteError as `Sequences.step`
    """
    n_context = max((w.n_positions for w in writings), default=1)
    # The memory holds so many texts of the longest kind; shorter texts do not raise that number.
    n_sequences = max(1, min(_MOST_TEXTS, len(writings), _KV_BYTES // model.kv_bytes(n_context)))
    batch = Batch(model, n_sequences, n_context)
    for writing in writings:
        batch.insert(writing)
    while batch:
        for writing, _ in batch.step():
            if writing.finish_reason is not None:
                advance()
