"""Runs `pythia` in forks of a process that has everything loaded and compiled; a fork can come to harm at any step.

A step is the beginning or the end of a call that changes a file or a folder, in any thread: writes, fsyncs, renames,
links, locks. One request a line on stdin, one answer a line on stdout:

    {"run": ["quantize", ...], "cwd": folder, "at": step, "harm": "kill"}   answered when it has ended or stopped
    {"go on": pid}                                                         the same, for one that has stopped

The first argument is a model that the server quantizes itself, so that forks find all kernels loaded.
"""

from __future__ import annotations

import _io
import contextlib
import fcntl
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import threading
from types import FrameType
from typing import Any

CALLS = {"fsync", "replace", "unlink", "rmdir", "mkdir", "link", "flock", "open", "write"}
HOG = "hog"


class Steps:
    """Counts the steps of a process, writes their names to a pipe, and does harm at one of them."""

    def __init__(self, at: int, harm: str, log: int) -> None:
        self.at, self.harm, self.log = at, harm, log
        self.counter = itertools.count(1)
        self.is_in_harm = False

    def __call__(self, frame: FrameType, event: str, call: Any) -> None:
        if not event.startswith("c_") or self.is_in_harm or call.__name__ not in CALLS:
            return
        if isinstance(call.__self__, _io.FileIO) or call.__module__ in ("posix", "fcntl"):
            # No step itself: a profile function is not profiled.
            os.write(self.log, f"{call.__name__}\n".encode())
            if next(self.counter) == self.at:
                self.is_in_harm = True
                getattr(self, self.harm)()
                self.is_in_harm = False

    def kill(self) -> None:
        """As `kill -9`, or the kernel when memory is short."""
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self) -> None:
        """Until somebody says go on."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def limit(self) -> None:
        """No file may grow any more."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def fill(self) -> None:
        """Not a byte is left on the disk of the working directory."""
        with contextlib.suppress(OSError), open(HOG, "wb", buffering=0) as hog:
            for size in (1 << 16, 1 << 8, 1):
                with contextlib.suppress(OSError):
                    while hog.write(bytes(size)):
                        pass


def run_fork(request: dict[str, Any], pipes: list[int]) -> None:
    """In the fork: become the command, and never come back."""
    from pythia_gguf.cli.main import main

    os.chdir(request["cwd"])
    for fd, pipe in zip((1, 2), pipes, strict=False):
        os.dup2(pipe, fd)
    sys.argv = ["pythia", *request["run"]]
    steps = Steps(request.get("at", 0), request.get("harm", "kill"), pipes[2])
    threading.setprofile(steps)
    sys.setprofile(steps)
    try:
        main()
    except SystemExit as e:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(e.code or 0))
    finally:
        os._exit(1)


def wait(pid: int, pipes: list[int]) -> dict[str, Any]:
    """What became of a fork: its exit code, or minus the signal that stopped or killed it."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    texts = [drain(fd) for fd in pipes]
    code = -os.WSTOPSIG(status) if stopped else os.waitstatus_to_exitcode(status)
    return {"pid": pid, "code": code, "out": texts[0], "err": texts[1], "steps": texts[2].split()}


def drain(fd: int) -> str:
    """All that lies in a pipe."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 65536):
            found += part
    return found.decode()


def serve() -> None:
    """Answers until stdin ends."""
    from pythia_gguf import quantize
    from pythia_gguf.press import output

    output.BUFFER_BYTES = 4096  # the model is small, and its files are to be many writes
    with tempfile.TemporaryDirectory() as folder:
        quantize(sys.argv[1], folder, threads=1)
    running: dict[int, list[int]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        pid = request.get("go on", 0)
        if pid:
            os.kill(pid, signal.SIGCONT)
        else:
            pairs = [os.pipe() for _ in range(3)]
            pid = os.fork()
            if pid == 0:
                run_fork(request, [write for _, write in pairs])
            for read, write in pairs:
                os.close(write)
                fcntl.fcntl(read, fcntl.F_SETFL, os.O_NONBLOCK)
            running[pid] = [read for read, _ in pairs]
        answer = wait(pid, running[pid])
        if answer["code"] != -signal.SIGSTOP:
            for fd in running.pop(pid):
                os.close(fd)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
