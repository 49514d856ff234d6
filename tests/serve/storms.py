"""Loads and attacks of any size on a server: the tests take small ones, the campaign large ones."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from engine.nano import HELDOUT
from patience import HANGS_S
from serve.raw_requests import HUGE_CHUNK, mutated, raw_request
from serve.running import MODEL, RunningServer, events

MOST_CONNECTIONS, RECEIVE_S = 256, 10


def stream_of(server: RunningServer, n_tokens: int, seed: int) -> socket.socket:
    """A connection on which a stream has begun."""
    connection = server.connect()
    fields = {"model": MODEL, "prompt": "def main(", "max_tokens": n_tokens, "seed": seed, "stream": True}
    connection.sendall(raw_request("POST", "/v1/completions", json.dumps(fields | {"logit_bias": {"0": -100}})))
    assert connection.recv(64).startswith(b"HTTP/1.1 200")
    return connection


def leave_in_waves(server: RunningServer, n_waves: int, n_clients: int, limit_s: float) -> None:
    """Clients leave mid-stream, in the queue, and before an answer that is not streamed; nothing is kept of them.

    limit_s  after which the server must be idle
    """
    server.complete("a", max_tokens=1)
    n_descriptors, n_cancelled = server.n_descriptors(), server.metric("cancelled_total")
    before = 0
    for wave in range(n_waves):
        with ThreadPoolExecutor(16) as pool:
            connections = list(pool.map(lambda i: stream_of(server, 500, i), range(n_clients)))
        whole = server.connect()
        fields = {"model": MODEL, "prompt": ["def"] * 8, "max_tokens": 500, "n": 8}
        whole.sendall(raw_request("POST", "/v1/completions", json.dumps(fields)))
        for connection in (*connections, whole):
            connection.close()
        server.wait_until_idle(limit_s)
        # The first wave takes memory that all others use again.
        before = before or server.memory_bytes()
        assert server.n_descriptors() <= n_descriptors + 2, wave
    assert server.metric("cancelled_total") >= n_cancelled + n_waves * n_clients
    assert server.memory_bytes() - before < 4 << 20


def crowd(server: RunningServer, n_requests: int, n_connections: int) -> None:
    """Half of the requests are streamed; every text is the one that a client alone gets."""
    text = HELDOUT.read_text("utf-8")
    prompts = [text[at : at + 30] for at in range(0, 1_000, 100)]
    alone = [server.complete(p, max_tokens=4, temperature=0)["choices"][0]["text"] for p in prompts]

    def ask(i: int) -> bool:
        body = {"model": MODEL, "prompt": prompts[i % 10], "max_tokens": 4, "temperature": 0, "stream": i % 2 == 0}
        response = server.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        chunks = events(response.text) if body["stream"] else [response.json()]
        return "".join(c["choices"][0]["text"] for c in chunks) == alone[i % 10]

    with ThreadPoolExecutor(n_connections) as pool:
        assert all(pool.map(ask, range(n_requests)))


def send_mutants(server: RunningServer, n: int, seed: int, limit_s: float) -> None:
    """Raw requests with changes; meanwhile the server says within the limit that it lives, 99 times of 100."""
    drawn, took = random.Random(seed), []
    is_over = threading.Event()
    statuses: set[bytes] = set()

    def watch() -> None:
        while not is_over.wait(0.02):
            started = time.perf_counter()
            assert server.http.get("/health").status_code == 200
            took.append(time.perf_counter() - started)

    def send(data: bytes) -> None:
        with server.connect() as connection:
            connection.settimeout(0.05)
            try:
                connection.sendall(data)
                statuses.add(connection.recv(100)[9:12])
            except OSError:
                pass

    with ThreadPoolExecutor(9) as pool:
        watched = pool.submit(watch)
        try:
            for _ in range(0, n, 1_000):
                list(pool.map(send, [mutated(drawn) for _ in range(min(n, 1_000))]))
        finally:
            is_over.set()
        watched.result()
    assert not [status for status in statuses if status.startswith(b"5")]
    assert statuses >= {b"200", b"400", b"404"}
    assert sorted(took)[int(0.99 * len(took))] < limit_s
    assert server.process.poll() is None
    server.wait_until_idle(5.0)


def be_slow(server: RunningServer, n: int) -> None:
    """Nothing, half a header, half a body, a chunk without an end, a byte now and then: all are shut in time.

    n  connections, more than the server takes; it refuses the others at once
    """
    kinds = (b"", b"GET /health HTTP/1.1\r\na: ", raw_request("POST", "/v1/completions", "{}")[:-1], HUGE_CHUNK)
    started = time.monotonic()
    connections = list(_opened(server, [kinds[i % 4] for i in range(n)]))
    # The client of these tests keeps up to 20 connections open that it has used, and a watch that has ended some.
    n_taken = MOST_CONNECTIONS - 30
    assert all(c.recv(100).startswith(b"HTTP/1.1 503") for c in connections[MOST_CONNECTIONS:])
    assert time.monotonic() - started < 5
    is_over = threading.Event()
    drip = threading.Thread(target=_drip, args=(connections[1], is_over))
    drip.start()
    for connection in connections[:n_taken]:
        connection.settimeout(HANGS_S)
        try:
            assert connection.recv(100).startswith(b"HTTP/1.1 408")
        except ConnectionResetError:  # what it sent last came after the answer
            assert connection is connections[1]
        assert time.monotonic() - started < RECEIVE_S + 3
    is_over.set()
    drip.join()
    for connection in connections:
        connection.close()
    assert server.http.get("/health").status_code == 200


def read_nothing(server: RunningServer, limit_s: float) -> None:
    """A client that asks for megabytes and takes none of them is cut off within the limit."""
    server.complete("a", max_tokens=1)
    n_descriptors, ends = server.n_descriptors(), time.monotonic() + limit_s
    fields = {"model": MODEL, "prompt": ["def"] * 64, "max_tokens": 30, "n": 8, "logprobs": 20}
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(raw_request("POST", "/v1/completions", json.dumps(fields)))
        watch = threading.Event()
        while server.metric("texts") > 0 or server.n_descriptors() > n_descriptors:
            assert time.monotonic() < ends
            watch.wait(0.5)


def _opened(server: RunningServer, sent: list[bytes]) -> Iterator[socket.socket]:
    for data in sent:
        connection = server.connect()
        connection.sendall(data)
        yield connection


def _drip(connection: socket.socket, is_over: threading.Event) -> None:
    while not is_over.wait(0.5):
        try:
            connection.sendall(b"T")
        except OSError:
            return
