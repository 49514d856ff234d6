"""Compiles kernels before they are needed; where much is missing, in two processes.

A job says how a kernel is made. The second process is

    python -m pythia_gguf.kernels.compiling FOLDER

with the jobs in FOLDER/jobs.json. A process claims a job by making the file `i.claimed`, which only one can make, and
the job is ready when `i.ready` is there. Nothing is read from the other process, so a library may print there.
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

# How long the first process waits in all for jobs that the second one has begun. A kernel takes ten seconds at most on
# one core; after this time the first process makes it too.
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
        """Do the job."""
        getattr(sys.modules[self.module], self.function)(*self.arguments)


def compile_all(
    jobs: Sequence[Job],
    progress: Progress | None = None,
    threads: int | None = None,
    *,
    patience_s: float = PATIENCE_S,
) -> None:
    """Do all jobs, each once; where more than one kernel is missing, in two processes.

    jobs        with the longest at both ends: where the two processes meet, one may have to wait for the other
    progress    hears how many kernels are missing, and of each that is ready; its exception ends the work
    threads     of the caller, default one per CPU; with one there is no second process
    patience_s  how long to wait in all for jobs that the second process has begun

    Numba compiles in one thread at a time. So a second process begins at the other end of the list, and each finds
    in the cache what the other has made. Without that process, or without a cache, this one does everything.
    """
    jobs = list(dict.fromkeys(jobs))
    missing = [job for job in jobs if not job.is_kept]
    progress = progress or Silence()
    if missing:
        progress.stage(COMPILING, len(missing), "kernels")
    with _second_process(missing if threads_of(threads) > 1 else []) as second:
        # 1. From the front of the list, do each job that the second process has not claimed from its end.
        left = []
        for i, job in enumerate(missing):
            if second.has_claimed(i):
                left.append((i, job))
            else:
                job.run()
                progress.advance(job.name, 1)
        # 2. The two have met. The second process has what is left in the cache or still works on it; a job that it does
        #    not finish in time, because it was killed or is stuck, is done here.
        deadline = time.monotonic() + patience_s
        for i, job in left:
            second.wait_for(i, deadline)
            job.run()
            progress.advance(job.name, 1)
    # 3. Kernels that were in the cache from the start only need to be loaded.
    for job in jobs:
        if job.is_kept:
            job.run()


class _Second:
    """The second process as the first one sees it, and which jobs it has claimed.

    folder   where claims are; None without a second process
    process  that process; None counts as one that has ended
    """

    def __init__(self, folder: Path | None = None, process: subprocess.Popen[bytes] | None = None) -> None:
        self._folder = folder
        self._process = process

    def has_claimed(self, i: int) -> bool:
        """Whether the second process has claimed job i; if not, the job is the caller's from now on."""
        try:
            return self._folder is not None and not _claim(self._folder, i)
        except OSError:  # a full disk, a folder that somebody tidied away
            return False

    def wait_for(self, i: int, deadline: float) -> None:
        """Wait until job i is ready, the process has ended, or the monotonic clock has reached `deadline`."""
        assert self._folder is not None
        ready = self._folder / f"{i}.ready"
        while not ready.exists() and self._is_running() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


def _claim(folder: Path, i: int) -> bool:
    """Claim job i; returns False when another process has it."""
    try:
        (folder / f"{i}.claimed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _second_process(jobs: Sequence[Job]) -> Iterator[_Second]:
    """While the block runs, a second process claims and does jobs from the end of the list, except the first."""
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
    """Do the work of the second process."""
    jobs = read_json_object(folder / "jobs.json", _SHAPE)["jobs"]
    for i in range(len(jobs) - 1, 0, -1):
        if _claim(folder, i):
            pkgutil.resolve_name(f"{jobs[i]['module']}:{jobs[i]['function']}")(*jobs[i]["arguments"])
            (folder / f"{i}.ready").touch()


if __name__ == "__main__":
    _do_what_is_left(Path(sys.argv[1]))
