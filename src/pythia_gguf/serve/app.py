"""The routes, as a FastAPI application with its OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from importlib import metadata
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pythia_gguf.errors import PythiaGGUFError
from pythia_gguf.json_file import parse_json_object
from pythia_gguf.serve import shapes
from pythia_gguf.serve.answers import EventStream, unless_left
from pythia_gguf.serve.chat import as_chat, as_chat_chunk, completion_of
from pythia_gguf.serve.completions import CompletionJob
from pythia_gguf.serve.divergence import divergence
from pythia_gguf.serve.metrics import CONTENT_TYPE
from pythia_gguf.serve.page_files import add_page
from pythia_gguf.serve.refusals import CODES, RefusalError, refusal_of
from pythia_gguf.serve.state import ServerState
from pythia_gguf.serve.validation import refusal_of_fields

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": shapes.Error, "description": ", ".join(code for code, (s, _) in CODES.items() if s == status)}
    for status in sorted({status for status, _ in CODES.values()} - {499})
}
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_STREAMED = {"content": {EventStream.media_type: {"schema": _EVENT}}}
# Answers of routes without a body.
_ERRORS_OF_GET = {status: answer for status, answer in _ERRORS.items() if status not in (408, 413, 415, 504)}
ModelQuery = Annotated[str | None, Query(description="One of /v1/models; default the first.", max_length=512)]


class _StrictRequest(Request):
    """A request whose JSON has no key twice, no NaN, no number of a thousand digits, and does not nest deeply."""

    async def json(self) -> Any:
        """The object in the body."""
        body = await self.body()
        try:
            return parse_json_object(body.decode("utf-8"))
        except ValueError as e:
            raise json.JSONDecodeError(str(e), "", 0) from e


class _StrictRoute(APIRoute):
    """A route that takes JSON only where the request says that it is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers."""
        answer = super().get_route_handler()

        async def answer_strictly(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind != "application/json":
                raise RefusalError("wrong_content_type", "send the body as JSON, with `Content-Type: application/json`")
            return await answer(_StrictRequest(request.scope, request.receive))

        return answer_strictly


def make_app(state: ServerState) -> FastAPI:
    """The application; it says what the state knows, and lets the state's engine work."""
    app = FastAPI(
        title="pythia-gguf",
        version=metadata.version("pythia-gguf"),
        description="Completions of base models with the likelihood of every token; equal requests get equal bits.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.route_class = _StrictRoute
    _add_completions(app, state)
    _add_tokens(app, state)
    _add_state(app, state)
    add_page(app)
    _add_errors(app)
    _name_models(app.openapi(), list(state.registry.sources))
    return app


def _name_models(part: Any, names: list[str]) -> None:
    """Put the names of the models into the OpenAPI document wherever a field takes one."""
    if isinstance(part, dict):
        if part.pop(shapes.SERVED_NAMES, False):
            part["enum"] = names
        for inner in part.values():
            _name_models(inner, names)
    elif isinstance(part, list):
        for inner in part:
            _name_models(inner, names)


def _add_completions(app: FastAPI, state: ServerState) -> None:
    @app.post("/v1/completions", responses={200: {"model": shapes.Completion} | _STREAMED, **_ERRORS})
    async def complete(request: Request, asked: shapes.CompletionRequest) -> Response:
        """Write on from a prompt, or say how likely it is."""
        return await _completion(state, request, asked, dict, dict)

    @app.post("/v1/chat/completions", responses={200: {"model": shapes.Chat} | _STREAMED, **_ERRORS})
    async def chat(request: Request, asked: shapes.ChatRequest) -> Response:
        """Answer in a conversation, where the server was started with a format for one."""
        name = state.registry.options.chat_format
        if name is None:
            raise RefusalError(
                "unsupported",
                "base models know no roles, and no template of a file is run: write the whole text into the prompt of"
                " /v1/completions, or start the server with one of its formats for chats",
                "messages",
            )
        return await _completion(state, request, completion_of(asked, name), as_chat, as_chat_chunk)

    @app.post("/v1/divergence", responses={200: {"model": shapes.Divergence}, **_ERRORS})
    async def diverge(request: Request, asked: shapes.DivergenceRequest) -> Response:
        """How far two models are apart on a text: the Kullback-Leibler divergence at each token."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(state.place_for(1))
            reference, candidate = [
                await stack.enter_async_context(state.registry.use(name, "models")) for name in asked.models
            ]
            work = divergence(state.engine, reference, candidate, asked.prompt)
            answer = await unless_left(request.receive, work, state.metrics)
        return JSONResponse(answer)


async def _completion(
    state: ServerState,
    request: Request,
    asked: shapes.CompletionRequest,
    shaped: Callable[[dict[str, Any]], dict[str, Any]],
    shaped_chunk: Callable[[dict[str, Any]], dict[str, Any]],
) -> Response:
    if asked.stream_options is not None and not asked.stream:
        raise RefusalError("bad_value", "stream_options needs stream to be true", "stream_options")
    async with contextlib.AsyncExitStack() as stack:
        job = await stack.enter_async_context(_job(state, asked))
        if asked.stream:
            # The stream goes on when this function has returned, and gives the model up when it ends.
            return EventStream(job.chunks(state.engine), shaped_chunk, stack.pop_all(), state.metrics)
        answer = await unless_left(request.receive, job.answer(state.engine), state.metrics)
    return JSONResponse(shaped(answer))


@contextlib.asynccontextmanager
async def _job(state: ServerState, asked: shapes.CompletionRequest) -> AsyncIterator[CompletionJob]:
    """A job whose model stays in memory, and that counts among those that wait."""
    n_prompts = len(asked.prompt) if isinstance(asked.prompt, list) and not isinstance(asked.prompt[0], int) else 1
    with state.place_for(n_prompts * (asked.n or 1)):
        async with state.registry.use(asked.model) as served:
            job = await asyncio.to_thread(CompletionJob, asked, served)
            try:
                yield job
            finally:
                usage = job.usage
                state.metrics.n_prompt_tokens += usage["prompt_tokens"]
                state.metrics.n_written_tokens += usage["completion_tokens"]


def _add_tokens(app: FastAPI, state: ServerState) -> None:
    @app.post("/tokenize", responses={200: {"model": shapes.Tokens}, **_ERRORS})
    async def tokenize(asked: shapes.TokenizeRequest) -> Response:
        """Ids of a text."""
        async with state.registry.use(asked.model) as served:
            tokenizer = served.model.tokenizer
            special = None if asked.add_special_tokens else False
            ids = await asyncio.to_thread(tokenizer.encode, asked.prompt, special=special)
            strings = [tokenizer.decode([i]) for i in ids] if asked.return_token_strs else None
            size = served.batch.n_context
            return JSONResponse({"count": len(ids), "max_model_len": size, "tokens": ids, "token_strs": strings})

    @app.post("/detokenize", responses={200: {"model": shapes.Text}, **_ERRORS})
    async def detokenize(asked: shapes.DetokenizeRequest) -> Response:
        """Text of ids."""
        async with state.registry.use(asked.model) as served:
            n_vocab = served.model.n_vocab
            if asked.tokens and max(asked.tokens) >= n_vocab:
                raise RefusalError(
                    "bad_value", f"tokens must be ids of 0 to {n_vocab - 1}, got {max(asked.tokens)}", "tokens"
                )
            return JSONResponse({"prompt": served.model.tokenizer.decode(asked.tokens)})

    @app.get("/tokenizer_info", responses={200: {"model": shapes.TokenizerInfo}, **_ERRORS_OF_GET})
    async def tokenizer_info(model: ModelQuery = None) -> Response:
        """What clients need to know of the tokenizer."""
        async with state.registry.use(model) as served:
            tokenizer = served.model.tokenizer
            special = tokenizer.special
            named = {"bos": special.begin, "eos": special.end, "pad": special.pad, "unk": special.unknown}
            texts = {f"{name}_token": None if i is None else tokenizer.decode([i]) for name, i in named.items()}
            sizes = {"model_max_length": served.batch.n_context, "vocab_size": served.model.n_vocab}
            return JSONResponse({"tokenizer_class": "PreTrainedTokenizerFast", **sizes, **texts})


def _add_state(app: FastAPI, state: ServerState) -> None:
    @app.get("/v1/models", responses={200: {"model": shapes.ModelList}, **_ERRORS_OF_GET})
    async def models() -> Response:
        """Every model that may be asked for."""
        return JSONResponse({"object": "list", "data": state.cards()})

    @app.get("/health", responses={200: {"model": shapes.Health}, **_ERRORS_OF_GET})
    async def health() -> Response:
        """Whether requests are taken."""
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **_ERRORS_OF_GET})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(state.metrics.text(state.gauges()), media_type=CONTENT_TYPE)


def _add_errors(app: FastAPI) -> None:
    def answer(refusal: RefusalError) -> Response:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        return answer(error)

    @app.exception_handler(PythiaGGUFError)
    @app.exception_handler(MemoryError)
    async def failed(request: Request, error: PythiaGGUFError | MemoryError) -> Response:
        return answer(refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        known = {*shapes.CompletionRequest.model_fields, *shapes.TokenizeRequest.model_fields, "models", "tokens"}
        return answer(refusal_of_fields(error.errors(), known))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 405:
            return answer(
                RefusalError(
                    "wrong_method",
                    f"{path} cannot be asked for with {request.method}",
                    None,
                    **dict(error.headers or {}),
                )
            )
        if error.status_code == 404:
            return answer(RefusalError("no_such_route", f"there is nothing at {path}"))
        return answer(RefusalError("bad_request", str(error.detail)))

    @app.exception_handler(500)
    async def fault(request: Request, error: Exception) -> Response:
        return answer(RefusalError("internal", "a fault of the server: its log says more"))
