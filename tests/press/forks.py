"""The tests' side of fork_server.py: a small model, its folder as it must be, and runs that come to harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from patience import HANGS_S
from press import tiny

# Three files and an alias, with and without search for scales.
QUANTIZE = ("quantize", "../m.F16.gguf", "--out", "out", "--quants", "Q4_K_M,Q4_K,Q8_0,Q4_0", "--threads", "1")
FILES = ("m.Q4_0.gguf", "m.Q4_K.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf")
FORCE = (*QUANTIZE, "--force")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of a run: exit code or minus a signal, output, and the names of its steps."""

    pid: int
    code: int
    out: str
    err: str
    steps: list[str]


class Forks:
    """A running fork server, and the folder in which its model lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = folder / "m.F16.gguf"
        model.write_bytes(tiny.gguf_bytes(width=32))
        command = [sys.executable, "-W", "error", str(Path(__file__).with_name("fork_server.py")), str(model)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        assert self._server.wait(timeout=HANGS_S) == 0

    def run(self, cwd: Path, args: Sequence[str] = QUANTIZE, at: int = 0, harm: str = "kill") -> Run:
        """Until it has ended or stopped; `cwd` is made beside the model."""
        cwd.mkdir(exist_ok=True)
        return self._ask({"run": args, "cwd": str(cwd), "at": at, "harm": harm})

    def go_on(self, run: Run) -> Run:
        """A run that has stopped, until it ends."""
        return self._ask({"go on": run.pid})

    def _ask(self, request: dict[str, Any]) -> Run:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Run(**json.loads(self._server.stdout.readline()))


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of everything under a folder, hidden or not."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def spread(n: int, first: int, last: int) -> list[int]:
    """`n` steps from `first` to `last`, evenly."""
    return sorted({first + (last - first) * i // (n - 1) for i in range(n)})
