"""A completion: from a request to texts for the engine, and from what the engine has written to OpenAI's answer."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any

from pythia_gguf.engine.logprobs import TokenLogprob
from pythia_gguf.engine.sampling import Sampling
from pythia_gguf.engine.writing import Writing, WritingOptions, begin_writing
from pythia_gguf.serve.engine_thread import EngineThread, News
from pythia_gguf.serve.refusals import RefusalError, refusal_of
from pythia_gguf.serve.registry import ServedModel
from pythia_gguf.serve.shapes import CompletionRequest
from pythia_gguf.serve.token_texts import Offsets, add_tokens, new_lists
from pythia_gguf.tokenizer import TextTokenizer

# Without this OpenAI writes so many tokens.
_DEFAULT_TOKENS = 16
# Texts of a request that wait in the engine's queue: one that ends is followed by the next without a step between.
_AHEAD = 2


class _Choice:
    """One text of an answer, as far as the client knows it.

    n_prompt  tokens of the prompt as the client sees it; an empty one has none
    is_ended  whether the client knows of its end
    """

    def __init__(
        self, index: int, writing: Writing, ids: list[int], request: CompletionRequest, tokenizer: TextTokenizer
    ) -> None:
        """`ids` are the prompt's."""
        self.index, self.writing, self.n_prompt, self._tokenizer = index, writing, len(ids), tokenizer
        self._writes, self._wants_logprobs = request.max_tokens != 0, request.logprobs is not None
        self._prompt = ids if request.echo else []
        self._echoed = tokenizer.decode(self._prompt)
        self._offsets = Offsets(tokenizer, len(self._echoed), hides_control=True)
        self.is_ended = self._is_begun = False
        self._n_told = 0

    @property
    def n_written(self) -> int:
        """Tokens that count as written."""
        return len(self.writing.tokens) if self._writes else 0

    def chunk(self, pieces: list[str], n_ids: int) -> dict[str, Any]:
        """What is new: text, its tokens, and at the end the reason why; the first chunk has the prompt.

        pieces  of new text
        n_ids   tokens of prompt and text now
        """
        echoed = "" if self._is_begun else self._echoed
        lists = self._lists(n_ids) if self._wants_logprobs else None
        self._is_begun = True
        reason = self.writing.finish_reason if self.is_ended else None
        return {
            "index": self.index,
            "text": echoed + "".join(pieces) if self._writes else echoed,
            "logprobs": lists,
            "finish_reason": reason if reason is None or self._writes else "length",
        }

    def _lists(self, n_ids: int) -> dict[str, list[Any]]:
        """The lists of `shapes.TokenLogprobs` for all tokens that are new."""
        lists = new_lists()
        if self._prompt and not self._is_begun:
            known = [None, *(self.writing.prompt_logprobs or ())]
            add_tokens(lists, self._tokenizer, zip(self._prompt, known, strict=True), Offsets(self._tokenizer))
        if self._writes:
            add_tokens(lists, self._tokenizer, self._new_tokens(n_ids), self._offsets)
        return lists

    def _new_tokens(self, n_ids: int) -> Iterator[tuple[int, TokenLogprob]]:
        logprobs = self.writing.logprobs or []
        n = n_ids - self.writing.n_prompt
        for likely in logprobs[self._n_told : n]:
            yield likely.token, likely
        self._n_told = n
        # The token that ends a text is none of it, but its likelihood belongs to the answer.
        if self.is_ended and (end := self.writing.end_logprob) is not None:
            yield end.token, end


class CompletionJob:
    """All texts of one request, from their beginning to the answer."""

    def __init__(self, request: CompletionRequest, served: ServedModel) -> None:
        """Raises RefusalError and UsageError for what a model cannot do. A prompt of a megabyte takes a while."""
        self.request, self.served = request, served
        self.seed = secrets.randbits(32) if request.seed is None else request.seed
        self._news: asyncio.Queue[tuple[_Choice, News]] = asyncio.Queue()
        self.choices = list(self._begun())
        self._id, self._created = f"cmpl-{secrets.token_hex(12)}", int(time.time())

    @property
    def needs_model(self) -> bool:
        """Whether a model must run: a prompt given back without likelihoods needs none."""
        return self.request.max_tokens != 0 or self.request.logprobs is not None

    async def answer(self, engine: EngineThread) -> dict[str, Any]:
        """The whole answer."""
        pieces: dict[int, list[str]] = {choice.index: [] for choice in self.choices}
        async for choice, news in self._run(engine):
            pieces[choice.index] += news.pieces
        # Others need the loop meanwhile: there may be thousands of tokens.
        return await asyncio.to_thread(self._whole, pieces)

    async def chunks(self, engine: EngineThread) -> AsyncGenerator[dict[str, Any]]:
        """The answer piece by piece."""
        options = self.request.stream_options
        async with contextlib.aclosing(self._run(engine)) as all_news:
            async for choice, news in all_news:
                new = choice.chunk(news.pieces, news.n_ids)
                # A step may show nothing: half a character, or what may be the beginning of a stop text.
                if new["text"] or new["finish_reason"] or (new["logprobs"] and new["logprobs"]["tokens"]):
                    yield self._around([new])
        if options is not None and options.include_usage:
            yield self._around([]) | {"usage": self.usage}

    def _whole(self, pieces: dict[int, list[str]]) -> dict[str, Any]:
        made = [c.chunk(pieces[c.index], len(c.writing.ids)) for c in self.choices]
        return self._around(made) | {"usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens; a prompt counts once, however many choices it has."""
        n_prompt = sum(choice.n_prompt for choice in self.choices[:: self.request.n or 1])
        n_written = sum(choice.n_written for choice in self.choices)
        return {"prompt_tokens": n_prompt, "completion_tokens": n_written, "total_tokens": n_prompt + n_written}

    async def _run(self, engine: EngineThread) -> AsyncGenerator[tuple[_Choice, News]]:
        """Let the engine write all texts; a listener that stops takes them out again."""
        waiting, running, batch = deque(self.choices), list[_Choice](), self.served.batch
        # 1. A prompt that is only given back needs no model.
        while waiting and not self.needs_model:
            choice = waiting.popleft()
            choice.is_ended = True
            yield choice, News(pieces=[], n_ids=choice.writing.n_prompt, is_ended=True)
        try:
            while waiting or running:
                # 2. Hand over as many texts as the engine writes at a time, and a few more: a request for hundreds
                #    leaves room for others in the engine's queue.
                while waiting and len(running) < batch.n_sequences + _AHEAD:
                    running.append(choice := waiting.popleft())
                    engine.write(batch, choice.writing, partial(self._hear, choice))
                # 3. Pass on what has become of one.
                choice, news = await self._news.get()
                if news.error is not None:
                    raise refusal_of(news.error)
                if news.is_ended:
                    choice.is_ended = True
                    running.remove(choice)
                yield choice, news
        finally:
            for choice in running:
                engine.leave(batch, choice.writing)

    def _hear(self, choice: _Choice, news: News) -> None:
        self._news.put_nowait((choice, news))

    def _begun(self) -> Iterator[_Choice]:
        request, model, batch = self.request, self.served.model, self.served.batch
        n_tokens = _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        if n_tokens == 0 and not request.echo:
            raise RefusalError("bad_value", "max_tokens must be at least 1 where echo is not true, got 0", "max_tokens")
        stops = () if request.stop is None else (request.stop,) if isinstance(request.stop, str) else request.stop
        options = WritingOptions(max_tokens=max(1, n_tokens), stop=tuple(stops), logprobs=request.logprobs)
        prompts = self._prompts()
        n = request.n or 1
        for i, prompt in enumerate(prompts):
            ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            needed = max(1, len(ids)) + options.max_tokens - 1
            if needed > batch.n_context and self.needs_model:
                raise RefusalError(
                    "context_length_exceeded",
                    f"prompt of {len(ids)} tokens and max_tokens {n_tokens} do not fit into the context of"
                    f" {batch.n_context}: ask for fewer tokens, or send a shorter prompt",
                    "prompt" if len(ids) > batch.n_context else "max_tokens",
                )
            for j in range(n):
                writing = begin_writing(model, ids, options, self._sampling(j), scores_prompt=bool(request.echo))
                batch.check(writing)
                yield _Choice(i * n + j, writing, ids, request, model.tokenizer)

    def _prompts(self) -> list[str | list[int]]:
        prompt: Any = self.request.prompt
        return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt

    def _sampling(self, i: int) -> Sampling:
        """How the i-th choice of each prompt is drawn; OpenAI's defaults, which filter nothing."""
        request = self.request

        def given(value: Any, default: Any) -> Any:
            return default if value is None else value

        return Sampling(
            temperature=given(request.temperature, 1.0),
            top_k=given(request.top_k, 0),
            top_p=given(request.top_p, 1.0),
            min_p=given(request.min_p, 0.0),
            repeat_penalty=given(request.repeat_penalty, 1.0),
            seed=(self.seed + i) % (1 << 64),
            logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
        )

    def _around(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
            "seed": self.seed,
            "choices": choices,
        }
