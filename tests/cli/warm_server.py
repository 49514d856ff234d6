"""Runs programs in forks of a process that has imported what commands import, which takes most of the time of a start.

A fork has the streams, the environment and the end of a process of its own. One request a line on stdin, one answer a
line on stdout:

    {"code": a program, "arguments": [...], "environment": {...}, "stdout": a file, "stderr": a file}
    3                                         the exit code, or minus the signal that ended it
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from typing import Any

import numba

import pythia_gguf.cli

# What commands import while they run.
MODULES = (
    "lm_eval.evaluator",
    "lm_eval.loggers",
    "lm_eval.tasks",
    "matplotlib.backends.backend_agg",
    "pythia_gguf.engine.model",
    "pythia_gguf.evals.files",
    "pythia_gguf.evals.harness",
    "pythia_gguf.evals.plots",
    "pythia_gguf.evals.tasks",
    "pythia_gguf.export.folder",
    "pythia_gguf.models.find",
    "pythia_gguf.models.publish",
    "pythia_gguf.press.quantize",
)


def become(request: dict[str, Any]) -> dict[str, Any]:
    """In the fork: take the streams, arguments and environment; returns the names of the program's module."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["arguments"]]
    return {"__name__": "__main__"}


def serve() -> None:
    """Answers until stdin ends; in a fork, runs its program and returns."""
    commands = [f"pythia_gguf.cli.{found.name}" for found in pkgutil.iter_modules(pythia_gguf.cli.__path__)]
    for module in (*MODULES, *commands):
        importlib.import_module(module)
    # Numba loads the rest of itself when it first compiles. No kernel of ours is loaded here.
    numba.njit(lambda: 0)()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            exec(request["code"], become(request))
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
