"""Text that a model writes, token by token.

Knows no kernel. What is written does not depend on threads, on other sequences or on drafts, only on model, text and
seed.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pythia_gguf.engine.lookup import Drafts
from pythia_gguf.engine.sampling import Sampler, Sampling
from pythia_gguf.engine.session import Part, Session
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.tokenizer import TextStream

if TYPE_CHECKING:
    from pythia_gguf.engine.model import Model

MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """How likely a token was, before any filter or temperature.

    token    its id
    logprob  natural logarithm of its probability
    top      the most likely tokens there and their log-probabilities, most likely first
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


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

    text           after the prompt, without the stop text
    tokens         ids, without the one that ends a text
    logprobs       one for each token, or None when they were not asked for
    finish_reason  "stop" (end of text, or a stop text) or "length"
    seed           that gives the same text again
    timings        how long it took
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: str
    seed: int
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be written.

    max_tokens  most tokens
    stop        texts at which it ends
    logprobs    None, or how many of the most likely tokens are told with each
    lookup      drafts from the text so far: the same text, sooner where it repeats itself
    shift       at the end of the context forget the older half instead of refusing
    """

    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    lookup: bool = False
    shift: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        if self.max_tokens < 1:
            raise UsageError(Argument("max_tokens"), f" must be at least 1, got {self.max_tokens}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UsageError(Argument("logprobs"), f" must be between 0 and {MAX_LOGPROBS}, got {self.logprobs}")
        if "" in self.stop:
            raise UsageError(Argument("stop"), " must not be empty")


class Generation:
    """One text while it is written: iterate for its pieces, then ask for `completion`.

    model  that writes it
    """

    def __init__(self, model: Model, prompt: str | Sequence[int], wanted: Wanted, sampling: Sampling | None) -> None:
        """Raises UsageError when prompt and new tokens do not fit into the context.

        prompt    text, or ids; an empty one stands for the token that ends a text
        sampling  None for the defaults and a seed from the operating system
        """
        self.model, self._wanted = model, wanted
        self._sampling = sampling or Sampling(seed=secrets.randbits(32))
        self._ids = list(model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
        if not self._ids:
            self._ids = [model.tokenizer.i_eos or 0]
        self._n_prompt = len(self._ids)
        self._n_context = _context(self._n_prompt, wanted, model.n_context)
        self._logprobs: list[TokenLogprob] = []
        self._finish, self._texts = "length", [""]
        self._n_steps = 0
        self._times = [time.perf_counter()] * 3

    def __iter__(self) -> Iterator[str]:
        """Pieces of text that are whole characters and no part of a stop text."""
        stream, held = TextStream(self.model.tokenizer), ""
        for token, logits in self._tokens():
            if token == self.model.tokenizer.i_eos:
                self._finish = "stop"
                break
            self._ids.append(token)
            if self._wanted.logprobs is not None:
                self._logprobs.append(token_logprob(logits, token, self._wanted.logprobs))
            held += stream.add(token)
            at = _first_stop(held, self._wanted.stop)
            if at is not None:
                held, self._finish = held[:at], "stop"
                break
            safe = len(held) - _may_be_stop(held, self._wanted.stop)
            if safe:
                yield self._told(held[:safe])
            held = held[safe:]
        else:
            held += stream.end()
        self._times[2] = time.perf_counter()
        if held:
            yield self._told(held)

    @property
    def completion(self) -> Completion:
        """All of it so far."""
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

    def _tokens(self) -> Iterator[tuple[int, np.ndarray]]:
        """Tokens and the logits they were chosen by; the caller appends a token to `_ids` before it takes the next."""
        session = Session(self.model, n_context=self._n_context)
        sampler, seq = Sampler(self._sampling), session.open()
        drafts = Drafts(self._ids) if self._wanted.lookup else None
        self._times[0] = time.perf_counter()
        rows = session.step([Part(seq=seq, ids=self._ids[-self._n_context :])])
        self._times[1] = self._times[2] = time.perf_counter()
        draft: list[int] = []
        left = self._wanted.max_tokens
        while True:
            for i, row in enumerate(rows):
                token = sampler.choose(row, self._ids)
                yield token, row
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

    def _step(self, session: Session, seq: int, ids: list[int]) -> np.ndarray:
        """Logits after each of the ids; when the context is full, after the newer half of what it held."""
        if session.length(seq) < self._n_context:
            return session.step([Part(seq=seq, ids=ids, n_wanted=len(ids))])
        session.truncate(seq, 0)
        return session.step([Part(seq=seq, ids=self._ids[-max(1, self._n_context // 2) :])])


def sampling_of(seed: int | None, **options: float) -> Sampling:
    """Sampling with the defaults for what is not given, and a seed from the operating system for None."""
    return replace(Sampling(**options), seed=secrets.randbits(32) if seed is None else seed)  # type: ignore[arg-type]


def token_logprob(logits: np.ndarray, token: int, n_top: int) -> TokenLogprob:
    """The log-probability of a token, and of the most likely ones; logits f32 [n_vocab], sums in float64."""
    values = logits.astype(np.float64)
    values -= log_sum_exp(values)
    top: tuple[tuple[int, float], ...] = ()
    if n_top:
        best = np.lexsort((np.arange(values.size), -values))[:n_top]
        top = tuple((int(i), float(values[i])) for i in best)
    return TokenLogprob(token=token, logprob=float(values[token]), top=top)


def log_sum_exp(values: np.ndarray) -> float:
    """log(sum(exp(values))), float64."""
    most = float(values.max())
    return most + math.log(float(np.exp(values - most).sum()))


def _context(n_prompt: int, wanted: Wanted, n_context: int) -> int:
    """Positions that a generation needs."""
    needed = n_prompt + wanted.max_tokens - 1  # nothing follows the last one
    if needed > n_context and not wanted.shift:
        room = n_context - n_prompt + 1
        fits: tuple[str | Argument, ...] = (
            (Argument("max_tokens"), f" at most {room}") if room > 0 else ("a shorter prompt",)
        )
        raise UsageError(
            f"a prompt of {n_prompt} tokens and {wanted.max_tokens} new ones do not fit into the context of"
            f" {n_context}: ",
            *fits,
            (", or ", Argument("shift", True), " to forget the oldest text"),
        )
    return min(needed, n_context)


def _first_stop(text: str, stops: tuple[str, ...]) -> int | None:
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found) if found else None


def _may_be_stop(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of a text with which a stop text begins."""
    return max(
        (n for stop in stops for n in range(1, min(len(stop), len(text)) + 1) if text.endswith(stop[:n])), default=0
    )
