"""Servers in processes of their own, and requests to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from engine.nano import nano_files
from patience import HANGS_S

MODEL, OTHER = "nano.Q4_K_M", "nano.Q8_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A process that serves.

    said  the lines that it has printed
    """

    process: subprocess.Popen[str]
    port: int
    said: list[str]
    http: httpx2.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, route: str, body: dict[str, Any]) -> httpx2.Response:
        return self.http.post(route, json=body)

    def complete(self, prompt: object, **fields: Any) -> dict[str, Any]:
        """The answer, which must be none of an error."""
        response = self.post("/v1/completions", {"model": MODEL, "prompt": prompt, **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def metric(self, name: str) -> float:
        match = re.search(rf"^pythia_{name} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        assert match is not None
        return float(match[1])

    def wait_until_idle(self, limit_s: float) -> None:
        """Until no text is left; an assertion fails when that takes longer."""
        ends = time.monotonic() + limit_s
        while (n := self.metric("texts")) > 0:
            assert time.monotonic() < ends, n

    def memory_bytes(self) -> int:
        """RssAnon and VmSwap: what a leak shows in, be it swapped out."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "VmSwap")))

    def n_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=HANGS_S)


@contextlib.contextmanager
def running(*arguments: str | Path, headers: dict[str, str] | None = None) -> Iterator[RunningServer]:
    """`pythia serve` with these arguments, from the moment when it answers; killed at the end."""
    line = [sys.executable, "-m", "pythia_gguf", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], HANGS_S)[0]
        said = [process.stdout.readline().rstrip("\n") for _ in range(3)]
        match = re.fullmatch(r"serving at http://127\.0\.0\.1:(\d+)", said[0])
        assert match is not None, said
        base = f"http://127.0.0.1:{match[1]}"
        with httpx2.Client(base_url=base, timeout=HANGS_S, headers=headers, trust_env=False) as http:
            yield RunningServer(process=process, port=int(match[1]), said=said, http=http)
    finally:
        process.kill()
        process.communicate()


def two_models() -> list[Path]:
    """The files of MODEL and OTHER."""
    return [nano_files()["Q4_K_M"], nano_files()["Q8_0"]]


def events(text: str) -> list[dict[str, Any]]:
    """The JSON of server-sent events, whose last one must be [DONE]."""
    *found, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(event) for event in found]


def ended_by(server: RunningServer, number: int = signal.SIGTERM) -> int:
    """The exit code after a signal."""
    server.process.send_signal(number)
    return server.process.wait(timeout=HANGS_S)
