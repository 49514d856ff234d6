"""One text that a model writes, as a state machine: it says which tokens to read next, and takes the logits after them.

It knows neither model nor clock, so that a batch can run any number of them side by side (engine/batch.py). The text
depends on the logits, the options and the seed, and on nothing else: drafts change no token.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from pythia_gguf.engine.protocol import Engine
from pythia_gguf.engine.sampling import Sampler, Sampling
from pythia_gguf.engine.visible_text import VisibleText
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.tokenizer import TextTokenizer

MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingOptions:
    """How much to write and when to stop; `engine.sampling.Sampling` says how tokens are chosen.

    max_tokens  write at most so many tokens
    stop        a text, or several, at which the new text ends; None for none
    logprobs    how many of the most likely tokens to report with each token; None: no log-probabilities
    lookup      draft from the text so far: the same text, sooner where it repeats itself
    shift       at the end of the context, forget the older half instead of refusing
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
        """The texts at which the new text ends."""
        return () if self.stop is None else texts("stop", self.stop)


class Writing:
    """A text, and everything that decides how it goes on.

    The caller keeps the first `n_kept` tokens of the text's sequence, lets the model read `next_ids` after them, hands
    the logits after the last `n_wanted` of these to `take`, and repeats that until `finish_reason` is not None.

    n_prompt       tokens of the prompt
    n_positions    its sequence never holds more tokens
    n_kept         tokens of the sequence that stay
    n_wanted       tokens at the end of `next_ids` whose logits are wanted, less those that `take` has got already
    n_steps        choices of tokens after the one that followed the prompt
    logprobs       one for each token written; None when they were not asked for
    end_logprob    log-probability of the end token, which is no part of the text; None when the text ended otherwise
    prompt_logprobs  one for each token of the prompt but the first; None when they were not asked for
    finish_reason  "stop" (end of text, or a stop text), "length", or None: it goes on
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        ids: list[int],
        options: WritingOptions,
        sampling: Sampling,
        n_context: int,
        ends: frozenset[int] | None = None,
        *,
        scores_prompt: bool = False,
    ) -> None:
        """Raises UsageError when prompt and new tokens do not fit into the context of the model.

        ids   the prompt, checked; if empty, the token that begins a text stands for it, or else the one that ends it
        ends  tokens at which the text ends; None: all end tokens of the tokenizer
        scores_prompt  whether log-probabilities, if they are asked for, are those of the prompt too
        """
        self._ids = list(ids) or [tokenizer.prefix]
        self._options, self.seed = options, sampling.seed
        self._ends = tokenizer.special.ends if ends is None else ends
        self.n_prompt = len(self._ids)
        self.n_positions = _positions(self.n_prompt, options, n_context)
        self.logprobs: list[TokenLogprob] | None = None if options.logprobs is None else []
        self.end_logprob: TokenLogprob | None = None
        self.finish_reason: str | None = None
        self.n_kept, self.n_wanted, self.n_steps = 0, 1, -1
        self._next = self._ids[-self.n_positions :]
        self.prompt_logprobs: list[TokenLogprob] | None = None
        if scores_prompt and options.logprobs is not None:
            self.prompt_logprobs, self.n_wanted = [], len(self._next)
        self._draft: list[int] = []
        self._drafts = Drafts(self._ids) if options.lookup else None
        self._sampler = Sampler(sampling)
        self._visible = VisibleText(tokenizer, options.stops)
        self._pieces: list[str] = []

    @property
    def tokens(self) -> tuple[int, ...]:
        """Ids that were written, without the one that ends the text."""
        return tuple(self._ids[self.n_prompt :])

    @property
    def text(self) -> str:
        """The text of these tokens so far; the last ones may be held back, as the beginning of a stop text."""
        return "".join(self._pieces)

    @property
    def ids(self) -> list[int]:
        """The prompt and what was written after it."""
        return self._ids

    @property
    def n_prompt_top(self) -> int | None:
        """Most likely tokens that each of `prompt_logprobs` tells; None where these are not asked for."""
        return None if self.prompt_logprobs is None else self._options.logprobs

    @property
    def n_sure(self) -> int:
        """Tokens at the beginning of its sequence that are those of the text; a draft behind them may be wrong."""
        return self.n_kept + len(self._next) - len(self._draft)

    @property
    def next_ids(self) -> list[int]:
        """Tokens to read after the first `n_kept`."""
        return self._next

    def take_over(self, scores: Sequence[TokenLogprob], n: int) -> None:
        """Take the first n of `prompt_logprobs` from a text that begins alike; called before any rows are taken."""
        if self.prompt_logprobs is not None:
            self.prompt_logprobs += [replace(s, top=s.top[: self._options.logprobs]) for s in scores[:n]]
            self.n_wanted -= n

    def take(self, rows: np.ndarray, room: np.ndarray | None = None) -> list[str]:
        """Choose tokens by logits f32 [n_wanted, n_vocab]; returns new pieces of text, each of whole characters.

        rows  while a prompt is read they may be the first of those that are wanted; other calls bring the rest
        room  memory to work in, from `sampling.room_for`
        """
        n_before = len(self._pieces)
        rows = self._score_prompt(rows)
        if not len(rows):
            return []
        n_right = self._choose(rows, room)
        self.n_steps += 1
        if self.finish_reason is None:
            self._plan(n_right)
        else:
            self._show(self._visible.end())
            if self._visible.is_stopped:
                self.finish_reason = "stop"
        return self._pieces[n_before:]

    def _score_prompt(self, rows: np.ndarray) -> np.ndarray:
        """Note how likely tokens of the prompt were; returns the rows after its last token, if they have come."""
        if self.prompt_logprobs is None:
            return rows
        n = min(len(rows), self.n_prompt - 1 - len(self.prompt_logprobs))
        for row in rows[:n]:
            token = self._ids[len(self.prompt_logprobs) + 1]
            self.prompt_logprobs.append(Logprobs(row).of(token, self._options.logprobs or 0))
        self.n_wanted -= n
        return rows[n:]

    def _choose(self, rows: np.ndarray, room: np.ndarray | None) -> int:
        """Add tokens until the text ends or a draft was wrong; returns how many drafted tokens were right."""
        for i, row in enumerate(rows):
            logprobs = None if self.logprobs is None else Logprobs(row)
            token = self._sampler.choose(row, self._ids, None if logprobs is None else logprobs.odds_sum, room)
            if token in self._ends:
                self.finish_reason = "stop"
                self.end_logprob = None if logprobs is None else logprobs.of(token, self._options.logprobs or 0)
                break
            self._add(token, logprobs)
            # The row after a drafted token means something only if that token was chosen.
            if self.finish_reason is not None or i == len(self._draft) or token != self._draft[i]:
                break
        return i

    def _add(self, token: int, logprobs: Logprobs | None) -> None:
        self._ids.append(token)
        if self.logprobs is not None and logprobs is not None:
            self.logprobs.append(logprobs.of(token, self._options.logprobs or 0))
        if self._drafts is not None:
            self._drafts.add(token)
        self._show(self._visible.add(token))
        if self._visible.is_stopped:
            self.finish_reason = "stop"
        elif len(self._ids) - self.n_prompt == self._options.max_tokens:
            self.finish_reason = "length"

    def _show(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)

    def _plan(self, n_right: int) -> None:
        """Decide what the model reads next, after a step with so many right tokens in its draft."""
        # 1. The sequence keeps what was read, less the drafted tokens that were wrong.
        self.n_kept += len(self._next) - (len(self._draft) - n_right)
        if self._drafts is not None:
            self._drafts.learn(len(self._draft), n_right)
        # 2. A full context begins anew with the newer half of the text, the token just chosen included.
        if self.n_kept == self.n_positions:
            self.n_kept, self.n_wanted, self._draft = 0, 1, []
            self._next = self._ids[-max(1, self.n_positions // 2) :]
            return
        # 3. Otherwise the new token is read, and behind it a draft, as far as context and wanted tokens allow.
        n_left = self._options.max_tokens - (len(self._ids) - self.n_prompt)
        n_most = min(n_left, self.n_positions - self.n_kept) - 1
        self._draft = [] if self._drafts is None else self._drafts.draft(n_most)
        self._next = [self._ids[-1], *self._draft]
        self.n_wanted = len(self._next)


def begin_writing(
    model: Engine,
    prompt: str | Iterable[int],
    options: WritingOptions,
    sampling: Sampling,
    ends: frozenset[int] | None = None,
    *,
    scores_prompt: bool = False,
) -> Writing:
    """A text for a model to write after a prompt, which is text or ids; see `Writing`.

    Raises  UsageError as `Writing` does, and for an unknown id
    """
    if unknown := [i for i in sampling.logit_bias if not 0 <= i < model.n_vocab]:
        raise UsageError(
            Argument("logit_bias"), f" must be of tokens 0 to {model.n_vocab - 1}, got {shown(unknown[0])}"
        )
    return Writing(
        model.tokenizer,
        _ids_of(model, prompt),
        options,
        sampling,
        model.n_context,
        ends,
        scores_prompt=scores_prompt,
    )


def options_of(options: Mapping[str, Any]) -> tuple[WritingOptions, Sampling]:
    """Options by name; without a seed the operating system gives one. Raises TypeError for an unknown name."""
    of_text, of_sampling = ({f.name for f in fields(kind)} for kind in (WritingOptions, Sampling))
    refuse_unknown(options, sorted(of_text | of_sampling))
    given = dict(options)
    if given.get("seed") is None:
        given["seed"] = secrets.randbits(32)
    writing = WritingOptions(**{name: value for name, value in given.items() if name in of_text})
    return writing, Sampling(**{name: value for name, value in given.items() if name in of_sampling})


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


def _positions(n_prompt: int, options: WritingOptions, n_context: int) -> int:
    """Tokens of a text's sequence at its longest."""
    needed = n_prompt + options.max_tokens - 1  # nothing follows the last one
    if needed > n_context and not options.shift:
        room = n_context - n_prompt + 1
        fits: tuple[str | Argument, ...] = (
            (Argument("max_tokens"), f" at most {room}") if room > 0 else ("a shorter prompt",)
        )
        raise UsageError(
            Argument("prompt"),
            f" has {n_prompt} tokens, which do not fit into the context of {n_context} with {options.max_tokens} new"
            " ones: ",
            *fits,
            (", or ", Argument("shift", True), " to forget the oldest text"),
        )
    return min(needed, n_context)
