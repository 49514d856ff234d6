"""Connections with limits that uvicorn does not have: how many there are, and how long a request may take to come.

A client that is too slow gets an answer that says so, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from pythia_gguf.json_file import json_text
from pythia_gguf.serve.guard import MOST_HEADER_BYTES
from pythia_gguf.serve.refusals import RefusalError

MOST_CONNECTIONS = 256
RECEIVE_S = 10.0
# A client that takes no byte of its answer for so long is cut off.
_STALL_S = 30.0
_DRAIN_S = 30
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class LimitedProtocol(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it: there are enough."""
        if len(self.connections) >= MOST_CONNECTIONS:
            self._is_refused = True
            transport.write(_raw_answer(RefusalError("busy", f"{MOST_CONNECTIONS} connections are open: try again")))
            transport.close()
            return
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_clock()
        if not self._is_refused:
            self.resume_writing()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request, which must be whole before the clock runs out."""
        if self._is_refused:
            return
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_request()
        super().data_received(data)
        self._look_if_whole()

    def pause_writing(self) -> None:
        """Wait for the client to take what was written."""
        super().pause_writing()
        self._stall = self.loop.call_later(_STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def on_response_complete(self) -> None:
        """Go on with what the client has sent meanwhile."""
        super().on_response_complete()
        self._look_if_whole()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with a request that is no HTTP, if an answer to it can still begin."""
        self._stop_clock()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            hint = getattr(sys.exception(), "error_status_hint", 400)
            code = "headers_too_large" if hint == 431 else "bad_request"
            self.transport.write(_raw_answer(RefusalError(code, "this is no request in HTTP/1.1 that can be answered")))
        self.transport.close()

    def _expect_request(self) -> None:
        self._deadline = self.loop.call_later(RECEIVE_S, self._refuse_slow)

    def _look_if_whole(self) -> None:
        if self.cycle is not None and not self.cycle.more_body:
            self._stop_clock()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse_slow(self) -> None:
        self._deadline = None
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(
                _raw_answer(RefusalError("too_slow", f"the request did not come within {RECEIVE_S:.0f} s"))
            )
        self.transport.close()


class DrainingServer(Server):
    """A server that SIGTERM, SIGINT and SIGHUP let finish what it has begun; a second signal ends it at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While the block runs, signals end the server; afterwards nobody hears of them."""
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal lets connections drain, the second does not wait for them."""
        self.force_exit = self.should_exit
        self.should_exit = True


def make_server(app: Any, host: str, port: int) -> DrainingServer:
    """A server for an ASGI application."""
    config = Config(
        app,
        host=host,
        port=port,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    return DrainingServer(config)


def _raw_answer(refusal: RefusalError) -> bytes:
    """A refusal as bytes, for a connection that has no request yet."""
    body = json_text(refusal.body).encode()
    lines = [f"HTTP/1.1 {refusal.status} Refused", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in refusal.headers.items()]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body
