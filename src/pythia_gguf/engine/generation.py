"""Text that a model writes, token by token.

Knows no kernel. What is written does not depend on threads, on other sequences or on drafts, only on model, text and
seed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pythia_gguf.arguments import (
    check_fields,
    flag,
    optional,
    refuse_unknown,
    shown,
    texts,
    whole_number,
    whole_numbers,
)
from pythia_gguf.engine.logprobs import Logprobs, TokenLogprob
from pythia_gguf.engine.lookup import Drafts
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Engine, Part, Sequences
from pythia_gguf.engine.sampling import Sampler, Sampling, room_for
from pythia_gguf.engine.written import Written
from pythia_gguf.errors import Argument, UsageError

MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall seconds and tokens.

    prompt_s     until the logits after the prompt
    generate_s   from there to the end
    n_prompt, n_generated  tokens
    n_steps      steps of the model after the prompt; fewer than tokens when drafts were right
    """

    prompt_s: float
    generate_s: float
    n_prompt: int
    n_generated: int
    n_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote.

    text           after the prompt, without the stop text and without control tokens
    tokens         ids, control tokens too, without the one that ends a text
    logprobs       one for each token, or None when they were not asked for
    finish_reason  "stop" (end of text, or a stop text), "length", or None: it has not come to its end
    seed           that gives the same text again
    timings        how long it took
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: str | None
    seed: int
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be written.

    max_tokens  most tokens
    stop        text at which it ends, or several; None for none
    logprobs    None, or how many of the most likely tokens are told with each
    lookup      drafts from the text so far: the same text, sooner where it repeats itself
    shift       at the end of the context forget the older half instead of refusing
    """

    max_tokens: int = 64
    stop: str | Iterable[str] | None = ()
    logprobs: int | None = None
    lookup: bool = False
    shift: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range, TypeError for one of another type."""
        check_fields(
            self,
            max_tokens=whole_number(1),
            stop=optional(texts),
            logprobs=optional(whole_number(0, MAX_LOGPROBS)),
            lookup=flag,
            shift=flag,
        )
        if "" in self.stops:
            raise UsageError(Argument("stop"), " must not be empty")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which it ends."""
        return () if self.stop is None else texts("stop", self.stop)


class Generation(ProcessBound):
    """One text while it is written: iterate for its pieces, once, and ask for `completion` when it has ended.

    model  that writes it
    """

    def __init__(
        self,
        model: Engine,
        prompt: str | Iterable[int],
        wanted: Wanted,
        sampling: Sampling,
        ends: frozenset[int] | None = None,
    ) -> None:
        """Raises UsageError when prompt and new tokens do not fit into the context, or for an id that there is not.

        prompt  text, or ids; an empty one stands for the token that begins a text, else the one that ends it
        ends    tokens at which it ends; None: all of `tokenizer.special_tokens`
        """
        self.model, self._wanted, self._sampling = model, wanted, sampling
        self._ids = _ids_of(model, prompt) or [model.tokenizer.prefix]
        self._ends = model.tokenizer.special.ends if ends is None else ends
        self._n_prompt = len(self._ids)
        self._n_context = _context(self._n_prompt, wanted, model.n_context)
        self._logprobs: list[TokenLogprob] = []
        self._finish: str | None = None
        self._texts = [""]
        self._n_steps = 0
        self._times = [time.perf_counter()] * 3
        self._is_begun = False

    def __iter__(self) -> Iterator[str]:
        """Pieces of text that are whole characters and no part of a stop text.

        Raises ValueError the second time: a text is written once, and an empty one would hide the mistake.
        """
        if self._is_begun:
            raise ValueError("a generation is iterated once: ask for its completion, or begin another")
        self._is_begun = True
        return self._pieces()

    def _pieces(self) -> Iterator[str]:
        written, finish = Written(self.model.tokenizer, self._wanted.stops), "length"
        for token, logprobs in self._tokens():
            if token in self._ends:
                finish = "stop"
                break
            self._ids.append(token)
            if logprobs is not None:
                self._logprobs.append(logprobs.of(token, self._wanted.logprobs or 0))
            piece = written.add(token)
            self._times[2] = time.perf_counter()
            if written.is_stopped:
                break
            if piece:
                yield self._told(piece)
        last = written.end()
        self._finish = "stop" if written.is_stopped else finish
        if last:
            yield self._told(last)

    @property
    def completion(self) -> Completion:
        """All of it so far; whole when the iteration has ended, which `finish_reason` tells.

        Until then the last tokens may not be in the text: they could be the beginning of a stop text.
        """
        started, prompted, ended = self._times
        tokens = self._ids[self._n_prompt :]
        return Completion(
            text="".join(self._texts),
            tokens=tuple(tokens),
            logprobs=None if self._wanted.logprobs is None else tuple(self._logprobs),
            finish_reason=self._finish,
            seed=self._sampling.seed,
            timings=Timings(
                prompt_s=prompted - started,
                generate_s=ended - prompted,
                n_prompt=self._n_prompt,
                n_generated=len(tokens),
                n_steps=self._n_steps,
            ),
        )

    def _told(self, text: str) -> str:
        self._texts.append(text)
        return text

    def _tokens(self) -> Iterator[tuple[int, Logprobs | None]]:
        """Tokens, with log-probabilities if wanted; the caller appends a token to `_ids` before it takes the next."""
        session = self.model.sequences(n_context=self._n_context)
        sampler, seq, room = Sampler(self._sampling), session.open(), room_for(self.model.n_vocab)
        drafts = Drafts(self._ids) if self._wanted.lookup else None
        self._times[0] = time.perf_counter()
        rows = session.step([Part(seq=seq, ids=self._ids[-self._n_context :])])
        self._times[1] = self._times[2] = time.perf_counter()
        draft: list[int] = []
        left = self._wanted.max_tokens
        while True:
            for i, row in enumerate(rows):
                logprobs = None if self._wanted.logprobs is None else Logprobs(row)
                token = sampler.choose(row, self._ids, None if logprobs is None else logprobs.odds_sum, room)
                yield token, logprobs
                left -= 1
                if left == 0:
                    return
                if drafts is not None:
                    drafts.add(token)
                if i == len(draft) or token != draft[i]:
                    break
            if drafts is not None:
                drafts.learn(len(draft), i)
            session.truncate(seq, session.length(seq) - (len(draft) - i))
            draft = drafts.draft(min(left - 1, self._n_context - session.length(seq) - 1)) if drafts is not None else []
            rows = self._step(session, seq, [token, *draft])
            self._n_steps += 1

    def _step(self, session: Sequences, seq: int, ids: list[int]) -> np.ndarray:
        """Logits after each of the ids; when the context is full, after the newer half of what it held."""
        if session.length(seq) < self._n_context:
            return session.step([Part(seq=seq, ids=ids, n_wanted=len(ids))])
        session.truncate(seq, 0)
        return session.step([Part(seq=seq, ids=self._ids[-max(1, self._n_context // 2) :])])


def options_of(options: Mapping[str, Any]) -> tuple[Wanted, Sampling]:
    """Options by name; seed None, or none, is one from the operating system. Raises TypeError for an unknown name."""
    of_text, of_sampling = ({f.name for f in fields(kind)} for kind in (Wanted, Sampling))
    refuse_unknown(options, sorted(of_text | of_sampling))
    given = dict(options)
    if given.get("seed") is None:
        given["seed"] = secrets.randbits(32)
    wanted = Wanted(**{name: value for name, value in given.items() if name in of_text})
    return wanted, Sampling(**{name: value for name, value in given.items() if name in of_sampling})


def _ids_of(model: Engine, prompt: str | Iterable[int]) -> list[int]:
    """Ids of a prompt, checked."""
    if isinstance(prompt, str):
        try:
            return model.tokenizer.encode(prompt)
        except UsageError as e:
            raise UsageError(Argument("prompt"), ": ", *e.parts) from e
    ids = whole_numbers("prompt", prompt)
    if ids and not 0 <= min(ids) <= max(ids) < model.n_vocab:
        wrong = next(i for i in ids if not 0 <= i < model.n_vocab)
        raise UsageError(Argument("prompt"), f" must have token ids of 0 to {model.n_vocab - 1}, got {shown(wrong)}")
    return ids


def _context(n_prompt: int, wanted: Wanted, n_context: int) -> int:
    """Positions that a generation needs."""
    needed = n_prompt + wanted.max_tokens - 1  # nothing follows the last one
    if needed > n_context and not wanted.shift:
        room = n_context - n_prompt + 1
        fits: tuple[str | Argument, ...] = (
            (Argument("max_tokens"), f" at most {room}") if room > 0 else ("a shorter prompt",)
        )
        raise UsageError(
            Argument("prompt"),
            f" has {n_prompt} tokens, which do not fit into the context of {n_context} with {wanted.max_tokens} new"
            " ones: ",
            *fits,
            (", or ", Argument("shift", True), " to forget the oldest text"),
        )
    return min(needed, n_context)
