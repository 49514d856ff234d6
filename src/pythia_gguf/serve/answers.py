"""Answers that take long: they end when the client leaves, or when their time is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response

from pythia_gguf.json_file import json_text
from pythia_gguf.serve.guard import Receive, Scope, Send
from pythia_gguf.serve.metrics import Metrics
from pythia_gguf.serve.refusals import RefusalError

DEADLINE_S = 600.0
Value = TypeVar("Value")


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Value], metrics: Metrics) -> Value:
    """The result of the work, which is cancelled when the client leaves.

    Raises RefusalError when the deadline is over, and then too when nobody is there to read it
    """
    left, working = asyncio.ensure_future(_left(receive)), asyncio.ensure_future(work)
    try:
        await asyncio.wait((left, working), timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        metrics.n_cancelled += 1
        if left.done():
            raise RefusalError("client_left", "the client has left")
        raise RefusalError("deadline", f"not done within {DEADLINE_S:.0f} s: ask for fewer tokens, or stream them")
    finally:
        for task in (left, working):
            task.cancel()
        await asyncio.gather(left, working, return_exceptions=True)


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, the last of them [DONE]; an error after the first one is an event, too."""

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[dict[str, Any]],
        shaped: Callable[[dict[str, Any]], dict[str, Any]],
        held: contextlib.AsyncExitStack,
        metrics: Metrics,
    ) -> None:
        """`shaped` makes an event of a chunk; `held` is given up at the end."""
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._chunks, self._shaped, self._held, self._metrics = chunks, shaped, held, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events."""
        async with self._held:
            try:
                await unless_left(receive, self._send(send), self._metrics)
            except RefusalError as refusal:
                # Nobody reads this where the client has left.
                await _send_event(send, refusal.body)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await _send_event(send, self._shaped(chunk))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})


async def _send_event(send: Send, event: dict[str, Any]) -> None:
    body = f"data: {json_text(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})
