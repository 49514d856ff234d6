"""Compiles kernels before they are needed; where much is missing, in two processes.

A job says how a kernel is made. The second process is

    python -m pythia_gguf.kernels.compiling FOLDER

with the jobs in FOLDER/jobs.json. A job is claimed by a file `i.claimed`, which only one process can make, and is ready
when `i.ready` is there. Nothing is read from the other process: whatever a library prints there disturbs nobody.
"""

from __future__ import annotations

import contextlib
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pythia_gguf.cpus import threads_of
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.progress import COMPILING, Progress, Silence

# How long the first process waits in all for what the second one has begun. A kernel takes ten seconds at most on one
# core; after this it is made by the first process too.
PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.02
_SHAPE = {"jobs": [{"module": str, "function": str, "arguments": [(str, bool)]}]}


class Job(NamedTuple):
    """`module.function(*arguments)`, of an imported module, compiles a kernel, or loads it from the cache.

    name     for people
    is_kept  whether it was there already when the job was made
    """

    name: str
    module: str
    function: str
    arguments: tuple[str | bool, ...]
    is_kept: bool

    def run(self) -> None:
        """Do it."""
        getattr(sys.modules[self.module], self.function)(*self.arguments)


def compile_all(
    jobs: Sequence[Job],
    progress: Progress | None = None,
    threads: int | None = None,
    *,
    patience_s: float = PATIENCE_S,
) -> None:
    """Do all jobs, each once; where more than one kernel is missing, in two processes.

    jobs        the longest ones best at both ends: where the two processes meet, one may have to wait for the other
    progress    hears of kernels that are not there, and of each that is ready then; what it raises ends the work
    threads     of the caller, default one per CPU; with one there is no second process
    patience_s  how long to wait in all for what the second process has begun

    Numba compiles in one thread at a time. So a second process begins at the other end of the list, and each finds
    in the cache what the other has made. Without that process, or without a cache, this one does everything.
    """
    jobs = list(dict.fromkeys(jobs))
    missing = [job for job in jobs if not job.is_kept]
    progress = progress or Silence()
    if missing:
        progress.stage(COMPILING, len(missing), "kernels")
    with _second_process(missing if threads_of(threads) > 1 else []) as second:
        left = []
        for i, job in enumerate(missing):
            if second.has_claimed(i):
                left.append((i, job))
            else:
                job.run()
                progress.advance(job.name, 1)
        deadline = time.monotonic() + patience_s
        for i, job in left:
            second.wait_for(i, deadline)
            job.run()
            progress.advance(job.name, 1)
    for job in jobs:
        if job.is_kept:
            job.run()


class _Second:
    """What is known of the second process, and of which jobs it does.

    folder   where claims are; None without a second process
    process  which counts as ended when there is none
    """

    def __init__(self, folder: Path | None = None, process: subprocess.Popen[bytes] | None = None) -> None:
        self._folder = folder
        self._process = process

    def has_claimed(self, i: int) -> bool:
        """Whether job i is its own; if not, it is the caller's from now on."""
        try:
            return self._folder is not None and not _claim(self._folder, i)
        except OSError:  # a full disk, a folder that somebody tidied away
            return False

    def wait_for(self, i: int, deadline: float) -> None:
        """Until job i is ready, the process has ended, or it is later than `deadline`, as of the monotonic clock."""
        assert self._folder is not None
        ready = self._folder / f"{i}.ready"
        while not ready.exists() and self._is_running() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


def _claim(folder: Path, i: int) -> bool:
    """Whether job i was nobody's until now."""
    try:
        (folder / f"{i}.claimed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _second_process(jobs: Sequence[Job]) -> Iterator[_Second]:
    """While the block runs, a process does what it can claim of `jobs` but the first, from the end."""
    if len(jobs) < 2 or not sys.executable or hasattr(sys, "frozen"):
        yield _Second()
        return
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            told = [{"module": job.module, "function": job.function, "arguments": job.arguments} for job in jobs]
            (folder / "jobs.json").write_text(json_text({"jobs": told}), "utf-8")
            process = subprocess.Popen(
                # -P: nothing is imported from the working directory
                [sys.executable, "-P", "-m", "pythia_gguf.kernels.compiling", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            # Where no process can be started, the caller compiles alone.
            yield _Second()
            return
        stack.callback(process.wait)
        stack.callback(process.terminate)
        yield _Second(folder, process)


def _do_what_is_left(folder: Path) -> None:
    """Be the second process."""
    jobs = read_json_object(folder / "jobs.json", _SHAPE)["jobs"]
    for i in range(len(jobs) - 1, 0, -1):
        if _claim(folder, i):
            pkgutil.resolve_name(f"{jobs[i]['module']}:{jobs[i]['function']}")(*jobs[i]["arguments"])
            (folder / f"{i}.ready").touch()


if __name__ == "__main__":
    _do_what_is_left(Path(sys.argv[1]))
