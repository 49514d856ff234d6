"""A server from its parts: models, engine, routes, guard, and the loop in which they run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable

from pythia_gguf.errors import Argument, StorageError, UsageError
from pythia_gguf.serve.app import make_app
from pythia_gguf.serve.connections import make_server
from pythia_gguf.serve.engine_thread import EngineThread
from pythia_gguf.serve.guard import LOOPBACK_NAMES, Guard, Scope
from pythia_gguf.serve.metrics import Metrics
from pythia_gguf.serve.page_files import is_public
from pythia_gguf.serve.registry import Registry
from pythia_gguf.serve.state import ServerState

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """A socket to serve on; port 0 takes a free one.

    Raises UsageError for a host other than loopback without a key, StorageError when the port cannot be had
    """
    if host not in _LOOPBACK and key is None:
        raise UsageError(Argument("host", host), " lets others in: that needs ", Argument("api_key_file"))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            stack.pop_all()
    except OSError as e:
        raise StorageError(f"cannot listen on {host}:{port}: {e.strerror}. Choose another ", Argument("port")) from e
    return listening


async def serve(
    registry: Registry,
    listening: socket.socket,
    *,
    hosts: Iterable[str],
    key: str | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until a signal comes.

    hosts     names that clients may call the server by, beside the loopback's and the address it listens on
    on_ready  called when requests are answered
    """
    metrics, loop = Metrics(), asyncio.get_running_loop()
    server = None

    def end() -> None:
        if server is not None:
            server.should_exit = server.force_exit = True

    engine = EngineThread(loop, metrics, end)
    state = ServerState(registry, engine, metrics)
    app = make_app(state)
    known = {path for route in app.routes if isinstance(path := getattr(route, "path", None), str)}

    def route_of(scope: Scope) -> str:
        return scope["path"] if scope["path"] in known else "other"

    address = listening.getsockname()[0]
    names = (*LOOPBACK_NAMES, f"[{address}]" if ":" in address else address, *hosts)
    guard = Guard(app, hosts=names, key=key, is_public=is_public, metrics=metrics, routes=route_of)
    server = make_server(guard, address, listening.getsockname()[1])
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        on_ready()
    try:
        await serving
    finally:
        engine.stop()
    if engine.has_failed:
        raise RuntimeError("the thread that runs models has ended")
