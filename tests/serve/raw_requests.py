"""Requests as bytes, right ones and wrong ones."""

from __future__ import annotations

import json
import random

from serve.running import MODEL

_BODY = json.dumps({"model": MODEL, "prompt": "def", "max_tokens": 1})


def raw_request(method: str, path: str, body: str = "", *headers: str, host: str = "127.0.0.1") -> bytes:
    """A request in HTTP/1.1."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *headers]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", body]).encode("latin-1")


def post(*headers: str, body: str = _BODY) -> bytes:
    """A completion with other headers than it should have, and without a length of its own."""
    lines = ["POST /v1/completions HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", *headers]
    return "\r\n".join([*lines, "", body]).encode("latin-1")


_CHUNKS = f"{len(_BODY):x}\r\n{_BODY}\r\n0\r\n\r\n"
_CHUNKED = "transfer-encoding: chunked"
# A chunk that never ends.
HUGE_CHUNK = post(_CHUNKED, body=f"{2**63:x}\r\na\r\n0\r\n\r\n")
# Name -> bytes, and the statuses that may come back; None: the connection may be shut without an answer.
REQUESTS: dict[str, tuple[bytes, set[int | None]]] = {
    "right": (raw_request("POST", "/v1/completions", _BODY), {200}),
    "chunked": (post(_CHUNKED, body=_CHUNKS), {200}),
    "health": (raw_request("GET", "/health"), {200}),
    "head": (raw_request("HEAD", "/health"), {405}),
    "options": (raw_request("OPTIONS", "/v1/completions"), {405}),
    "options of all": (raw_request("OPTIONS", "*"), {404, 405}),
    "trace": (raw_request("TRACE", "/health"), {405}),
    "connect": (raw_request("CONNECT", "127.0.0.1:80"), {404, 405}),
    "absolute": (raw_request("GET", "http://127.0.0.1/health"), {200, 404}),
    "length and chunks": (post(_CHUNKED, f"content-length: {len(_CHUNKS)}", body=_CHUNKS), {400}),
    "chunks and length": (post(f"content-length: {len(_CHUNKS)}", _CHUNKED, body=_CHUNKS), {400}),
    "two lengths": (post(f"content-length: {len(_BODY)}", "content-length: 3"), {400}),
    "a list of lengths": (post("content-length: 3, 4"), {400}),
    "negative length": (post("content-length: -1"), {400}),
    "signed length": (post("content-length: +5"), {400}),
    "huge length": (post(f"content-length: {10**20}"), {400, 413}),
    "length of a million digits": (post("content-length: " + "1" * 10**6), {400, 431, None}),
    "length of 5,000 digits": (post("content-length: " + "1" * 5_000), {400, 413, None}),
    "length beyond the limit": (post(f"content-length: {(1 << 20) + 1}"), {413}),
    "chunks beyond the limit": (post(_CHUNKED, body=f"{1 << 17:x}\r\n{'a' * (1 << 17)}\r\n" * 9), {413}),
    "chunks twice": (post("transfer-encoding: chunked, chunked", body=_CHUNKS), {400, 501}),
    "unknown encoding": (post("transfer-encoding: gzip"), {400, 501}),
    "chunk size is no number": (post(_CHUNKED, body="zz\r\na\r\n0\r\n\r\n"), {400}),
    "space before colon": (raw_request("GET", "/health", "", "a : b"), {400}),
    "folded header": (raw_request("GET", "/health", "", "a: b", " c"), {200, 400}),
    "NUL in a header": (raw_request("GET", "/health", "", "a: \0"), {400}),
    "NUL in the path": (b"GET /hea\0lth HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", {400}),
    "header without a name": (raw_request("GET", "/health", "", ": b"), {400}),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (raw_request("GET", "/health", "", "host: localhost"), {400, 403}),
    "HTTP/0.9": (b"GET /health\r\n\r\n", {400}),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", {403}),
    "HTTP/1.0 with a host": (b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n", {200}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 403}),
    "HTTP/9.9": (b"GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n", {200, 400, 505}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, {400}),
    "bare line feeds": (b"GET /health HTTP/1.1\nhost: localhost\n\n", {200, 400}),
    "upgrade": (raw_request("GET", "/health", "", "connection: upgrade", "upgrade: websocket"), {200, 400}),
    "65 headers": (raw_request("GET", "/health", "", *[f"a{i}: b" for i in range(65)]), {431}),
    "header of 17 KiB": (raw_request("GET", "/health", "", "a: " + "b" * (17 << 10)), {431}),
    "header of 1 MB": (raw_request("GET", "/health", "", "a: " + "b" * 10**6), {431, None}),
    "path of 1 MB": (raw_request("GET", "/" + "a" * 10**6), {431, None}),
    "query of 17 KiB": (raw_request("GET", "/health?" + "a" * (17 << 10)), {431}),
    "path is no UTF-8": (raw_request("GET", "/%ff%fe"), {404}),
    "broken escapes": (raw_request("GET", "/%zz%"), {404}),
    "dots": (raw_request("GET", "/page/../../../../etc/passwd"), {404}),
    "two slashes": (raw_request("GET", "//health"), {404}),
    "unknown method": (raw_request("BREW", "/health"), {405}),
    "method of 1,000 letters": (raw_request("A" * 1_000, "/health"), {405}),
    "expects more": (raw_request("POST", "/v1/completions", _BODY, "expect: 100-continue"), {100}),
    "expects what nobody knows": (raw_request("POST", "/v1/completions", _BODY, "expect: everything"), {200, 417}),
    "gzip": (raw_request("POST", "/v1/completions", _BODY, "content-encoding: gzip"), {200, 415}),
    "two at once": (raw_request("GET", "/health") * 2, {200}),
    "lines before": (b"\r\n\r\n" + raw_request("GET", "/health"), {200, 400}),
    "nothing but zeros": (b"\0" * 10_000, {400}),
}


def mutated(drawn: random.Random) -> bytes:
    """One of the requests with one to eight changes."""
    data = bytearray(drawn.choice(list(REQUESTS.values()))[0][:4_000])
    for _ in range(drawn.randrange(1, 9)):
        at = drawn.randrange(len(data))
        kind = drawn.randrange(4)
        if kind == 0:
            data[at] = drawn.randrange(256)
        elif kind == 1:
            data[at:at] = drawn.choice((b"\r\n", b"\0", b":", b" ", b"\xff" * 4, b"9" * 30, b'"', b"{[", b"\r\n\r\n"))
        elif kind == 2:
            del data[at : at + drawn.randrange(1, 20)]
            data = data or bytearray(b"G")
        else:
            data[at:at] = data[drawn.randrange(len(data)) :][:60]
    return bytes(data)
