"""Writes one text after a prompt: a batch of one, with a clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pythia_gguf.engine.batch import Batch
from pythia_gguf.engine.logprobs import TokenLogprob
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Engine
from pythia_gguf.engine.sampling import Sampling
from pythia_gguf.engine.writing import WritingOptions, begin_writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall seconds and tokens.

    prompt_s     until the first token
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
    seed           gives the same text again
    timings        how long it took
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    finish_reason: str | None
    seed: int
    timings: Timings


class Generation(ProcessBound):
    """One text while it is written: iterate once for its pieces, and ask for `completion` when it has ended.

    model  writes the text
    """

    def __init__(self, model: Engine, prompt: str | Iterable[int], options: WritingOptions, sampling: Sampling) -> None:
        """Raises UsageError when prompt and new tokens do not fit into the context, and for an unknown id."""
        self.model, self._writing = model, begin_writing(model, prompt, options, sampling)
        self._started = self._prompted = self._ended = time.perf_counter()
        self._is_begun = False

    def __iter__(self) -> Iterator[str]:
        """Pieces of text, each of whole characters and no part of a stop text.

        Raises ValueError the second time: a text is written once, and an empty one would hide the mistake.
        """
        if self._is_begun:
            raise ValueError("a generation is iterated once: ask for its completion, or begin another")
        self._is_begun = True
        return self._pieces()

    def _pieces(self) -> Iterator[str]:
        batch = Batch(self.model, n_context=self._writing.n_positions)
        batch.insert(self._writing)
        self._started = time.perf_counter()
        while batch:
            for _, pieces in batch.step():
                self._ended = time.perf_counter()
                if self._writing.n_steps == 0:
                    self._prompted = self._ended
                yield from pieces

    @property
    def completion(self) -> Completion:
        """The text so far; it is complete when `finish_reason` is not None.

        Until then the text may lack the last tokens: they could be the beginning of a stop text.
        """
        writing, tokens = self._writing, self._writing.tokens
        return Completion(
            text=writing.text,
            tokens=tokens,
            logprobs=None if writing.logprobs is None else tuple(writing.logprobs),
            finish_reason=writing.finish_reason,
            seed=writing.seed,
            timings=Timings(
                prompt_s=self._prompted - self._started,
                generate_s=self._ended - self._prompted,
                n_prompt=writing.n_prompt,
                n_generated=len(tokens),
                n_steps=max(0, writing.n_steps),
            ),
        )
