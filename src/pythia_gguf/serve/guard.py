"""What every request must pass before any route sees it: host, key, and sizes; and the count of all answers.

It is an ASGI application around another one, and the only place that knows the key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from pythia_gguf.serve.metrics import Metrics
from pythia_gguf.serve.refusals import RefusalError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 1 << 20
MOST_HEADER_BYTES, MOST_HEADERS = 16 << 10, 64
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Guard:
    """Refuses what no route should see.

    hosts      names and addresses that a Host header may give, each with any port
    key        that clients must send; None: none
    is_public  whether a path needs no key
    """

    def __init__(
        self,
        app: Application,
        *,
        hosts: Iterable[str],
        key: str | None,
        is_public: Callable[[str], bool],
        metrics: Metrics,
        routes: Callable[[Scope], str],
    ) -> None:
        self._app, self._metrics, self._is_public, self._routes = app, metrics, is_public, routes
        self._hosts = frozenset(host.lower() for host in hosts)
        self._key = None if key is None else _hash(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def sent(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                self._metrics.n_answers[self._routes(scope), message["status"]] += 1
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, _Body(receive).receive, sent)
        except RefusalError as refusal:
            if is_answered:
                raise
            # The rest of the request is not read.
            headers = {**refusal.headers, "connection": "close"}
            await JSONResponse(refusal.body, refusal.status, headers)(scope, receive, sent)

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        n_bytes = sum(len(name) + len(value) + 4 for name, value in headers) + len(scope.get("raw_path", b""))
        if len(headers) > MOST_HEADERS or n_bytes + len(scope["query_string"]) > MOST_HEADER_BYTES:
            raise RefusalError(
                "headers_too_large", f"headers may have {MOST_HEADER_BYTES} bytes in {MOST_HEADERS} lines at most"
            )
        values = _values(headers)
        hosts = values.get(b"host", [])
        if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
            raise RefusalError(
                "wrong_host", "the Host header names none of this server's names: start it with that name"
            )
        if self._key is not None and not self._is_public(scope["path"]):
            sent = values.get(b"authorization", [])
            token = sent[0][7:].strip() if len(sent) == 1 and sent[0][:7].lower() == b"bearer " else b""
            if not hmac.compare_digest(_hash(token), self._key):
                raise RefusalError("wrong_key", "no key, or a wrong one: send it as `Authorization: Bearer KEY`")
        if b"transfer-encoding" in values and b"content-length" in values:
            raise RefusalError("bad_request", "a body has a length or is chunked, not both")
        lengths = values.get(b"content-length", [])
        # Python refuses to read numbers of more than 4,300 digits.
        if lengths and (len(lengths[0]) > 20 or int(lengths[0]) > MOST_BODY_BYTES):
            raise _too_large()


class _Body:
    """A body that is counted while it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._n_bytes = receive, 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > MOST_BODY_BYTES:
            raise _too_large()
        return message


def _too_large() -> RefusalError:
    return RefusalError("too_large", f"a body may have {MOST_BODY_BYTES} bytes at most")


def _values(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found


def _host_name(host: bytes) -> str:
    """A Host header without its port."""
    text = host.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else text


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
