"""The tests' side of warm_server.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from patience import HANGS_S

PYTHIA = "import sys\nfrom pythia_gguf.cli.main import main\nsys.argv[0] = 'pythia'\nmain()"


class WarmServer:
    """A running server. Programs see its environment as far as they are given no other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_server.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.communicate(timeout=HANGS_S)
        assert self._server.returncode == 0

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        code: str = PYTHIA,
        environment: Mapping[str, str] | None = None,
        stdout: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A program, by default `pythia`, until its end; what it prints goes to `stdout` or is returned."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "code": code,
            "arguments": list(map(str, arguments)),
            "environment": dict(environment or {}),
            "stdout": str(stdout or self._out),
            "stderr": str(self._err),
        }
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer = int(self._server.stdout.readline())
        out = "" if stdout else self._out.read_text("utf-8")
        return subprocess.CompletedProcess(request["arguments"], answer, out, self._err.read_text("utf-8"))
