"""Writes several texts side by side: each step of the model takes all of them along.

Texts join and leave at any step, and none waits long for another, because prompts are read in slices and share each
step evenly. A beginning that prompts have in common is read once, and may be kept for prompts to come. Each text comes
out as it would alone, to the bit of its log-probabilities: the logits of a sequence do not depend on what else is in a
step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.engine.prefixes import Beginning, KeptBeginnings, n_scores, n_usable
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Engine, Part
from pythia_gguf.engine.sampling import room_for
from pythia_gguf.engine.writing import Writing
from pythia_gguf.errors import UsageError

# A step that also writes reads at most so many tokens of prompts: that takes about as long as a few steps without them.
_SLICE_TOKENS = 48
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
        return self.writing.n_steps < 0 or self.writing.n_wanted < len(self.to_read)


class Batch(ProcessBound):
    """Texts over one set of sequences.

    n_sequences  at most so many texts are written at a time; others wait in the order in which they came
    n_context    a text has at most so many tokens
    kv_bytes     limit for the keys and values of all texts, and of those that are kept; None: no limit
    n_kept       so many texts that have left are kept, because others may begin like them
    """

    def __init__(
        self,
        model: Engine,
        n_sequences: int = 1,
        n_context: int | None = None,
        kv_bytes: int | None = None,
        n_kept: int = 0,
    ) -> None:
        """Raises UsageError when the sequences do not fit into memory."""
        self._model, self._sequences = model, model.sequences(n_sequences + n_kept, n_context, kv_bytes=kv_bytes)
        self._kept = KeptBeginnings(self._sequences, n_kept)
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
        self.check(writing)
        self._waiting.append(writing)

    def check(self, writing: Writing) -> None:
        """Raise UsageError for a text that will never have room. Any thread may ask."""
        if writing.n_positions > self.n_context:
            raise UsageError(f"{writing.n_positions} tokens do not fit into a batch of {self.n_context} each")
        if self.kv_bytes is not None and (needed := self._needed(writing)) > self.kv_bytes:
            raise UsageError(
                f"keys and values of {writing.n_positions} tokens take {needed:,} bytes, and all texts together may"
                f" take {self.kv_bytes:,}"
            )

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
        # 3. Run the model. A text goes on only when all its tokens are read; a prompt may need several steps.
        rows, at, went_on = self._run([part for _, part in parts]), 0, []
        for member, part in parts:
            member.to_read = member.to_read[len(part.ids) :]
        for member, part in parts:
            pieces = member.writing.take(rows[at : at + part.n_wanted], self._room) if part.n_wanted else []
            at += part.n_wanted
            if not member.to_read:
                went_on.append((member.writing, pieces))
        # 4. Before a text can leave, texts that begin like it take over what it has read.
        self._take_beginnings()
        for member, _ in parts:
            if not member.to_read:
                self._go_on(member)
        return went_on

    def _admit(self) -> None:
        while self._waiting and len(self._members) < self.n_sequences:
            writing = self._waiting[0]
            needed = sum(map(self._needed, (writing, *(member.writing for member in self._members))))
            if self.kv_bytes is not None and needed > self.kv_bytes:
                return
            self._members.append(self._joined(self._waiting.popleft()))
            # What was kept gives way to texts, after the new one has taken its beginning from it.
            while self.kv_bytes is not None and needed + self._bytes_kept() > self.kv_bytes:
                self._kept.drop_oldest()

    def _joined(self, writing: Writing) -> _Member:
        """A text with a sequence that begins with what was kept, or that waits for what another text reads."""
        prompt, n_top = writing.next_ids, writing.n_prompt_top
        counts = [_n_usable(member, prompt, n_top) for member in self._members]
        n = max(counts, default=0)
        kept, n_kept = self._kept.longest(prompt, n_top)
        if kept is not None and n_kept >= max(n, _LEAST_SHARED):
            writing.take_over(kept.scores, n_kept)
            seq, leader, n = self._kept.use(kept, n_kept), None, n_kept
        else:
            seq, n_kept = self._sequences.open(), 0
            leader = self._members[counts.index(n)] if n >= _LEAST_SHARED else None
        return _Member(writing=writing, seq=seq, prompt=prompt, to_read=prompt[n_kept:], leader=leader, n_shared=n)

    def _bytes_kept(self) -> int:
        return sum(map(self._model.kv_bytes, self._kept.lengths))

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
                member.writing.take_over(leader.writing.prompt_logprobs or (), member.n_shared)
                member.to_read, member.leader = member.prompt[member.n_shared :], None

    def _parts(self) -> list[tuple[_Member, Part]]:
        members = [m for m in self._members if m.leader is None]
        parts = [(m, self._part(m, len(m.to_read))) for m in members if not m.is_prompt]
        prompts = [m for m in members if m.is_prompt]
        # A short prompt beside a long one is a text that soon grows, too.
        is_short_soon = len(prompts) > 1 and min(len(m.to_read) for m in prompts) <= _SLICE_TOKENS
        room = min(_SLICE_TOKENS if parts or is_short_soon else self._sequences.n_slice, self._sequences.n_slice)
        shares = _shares([len(m.to_read) for m in prompts], room)
        return parts + [(m, self._part(m, n)) for m, n in zip(prompts, shares, strict=True) if n]

    def _part(self, member: _Member, n: int) -> Part:
        """The next n tokens of a text; it wants logits only after the last tokens that it has to read."""
        n_unwanted = max(0, len(member.to_read) - member.writing.n_wanted)
        return Part(seq=member.seq, ids=member.to_read[:n], n_wanted=max(0, n - n_unwanted))

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
        # Where the context was full, the sequence does not begin as the text does.
        n = min(self._sequences.length(member.seq), member.writing.n_sure) if member.prompt else 0
        n = n if n >= _LEAST_SHARED else 0
        self._sequences.truncate(member.seq, n)
        scores, n_top = member.writing.prompt_logprobs or (), member.writing.n_prompt_top or 0
        self._kept.keep(Beginning(ids=member.writing.ids[:n], seq=member.seq, scores=scores, n_top=n_top))

    def _needed(self, writing: Writing) -> int:
        return self._model.kv_bytes(writing.n_positions)


def _n_usable(member: _Member, ids: Sequence[int], n_top: int | None) -> int:
    """Tokens of `ids` that need not be read again when all of the text's prompt is read."""
    its_top = member.writing.n_prompt_top
    n = n_scores(0, 0, n_top) if its_top is None else n_scores(len(member.prompt) - 1, its_top, n_top)
    return n_usable(member.prompt, ids, n)


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Tokens of a step for each prompt: nobody gets more than it wants, and what is left goes to all others evenly."""
    shares = [0] * len(wanted)
    for n_before, i in enumerate(sorted(range(len(wanted)), key=lambda i: wanted[i])):
        shares[i] = min(wanted[i], room, max(1, room // (len(wanted) - n_before)))
        room -= shares[i]
    return shares


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
