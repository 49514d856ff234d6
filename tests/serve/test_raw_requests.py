"""Requests that no client would send are answered, or shut, each as the list says."""

from __future__ import annotations

import pytest

from serve.raw_requests import REQUESTS
from serve.running import RunningServer


@pytest.mark.parametrize("name", REQUESTS)
def test_raw_request(server: RunningServer, name: str):
    data, allowed = REQUESTS[name]
    answer = b""
    with server.connect() as connection:
        try:
            connection.sendall(data)
            answer = connection.recv(200)
        except ConnectionError:  # it was shut while the request was still being sent
            pass
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None
    assert status in allowed, answer
    assert server.http.get("/health").json() == {"status": "ok"}
