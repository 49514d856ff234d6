"""Two processes that compile: none makes what the other is making, and nothing that happens to the second one matters.

Kernels are stood in for by files that take a while; the processes are real.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path

import pytest

from pythia_gguf.kernels.compiling import Job, compile_all

MAKER = '''
"""Makes files as kernels are made: once, found by whoever comes later."""
import hashlib, os, time
from pathlib import Path

def make(folder, name, awaited=""):
    """Begun by both processes before one goes on, where another file is awaited."""
    made, log = Path(folder, name), Path(folder, "log")
    if made.exists():
        return
    with log.open("a") as file:
        file.write(f"{name} {os.getpid()}\\n")
    while awaited and awaited not in log.read_text().split():
        pass
    hashlib.pbkdf2_hmac("sha256", b"", b"", {"slow": 2_000_000}.get(name, 300_000))
    made.touch()

def hang_elsewhere(folder, name, first_pid):
    """In another process: never ready."""
    if os.getpid() == int(first_pid):
        return make(folder, name)
    Path(folder, "hangs").touch()
    time.sleep(600)

def wait_for(folder, name):
    while not Path(folder, name).exists():
        pass
'''
# What Python runs at its start, wherever a file of this name is found.
CUSTOMS = {
    "prints": "import sys; print('hello', 7); print('x' * 100_000, file=sys.stderr)",
    "ends at once": "import os; os._exit(0)",
    "raises": "raise SystemExit(3)",
    "waits": "import time; time.sleep(600)",
}


class Heard:
    """Progress, kept."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done: list[str] = []

    def stage(self, name: str, total: int, unit: str) -> None:
        self.stages.append(f"{name} {total} {unit}")

    def advance(self, what: str, n: int) -> None:
        self.done.append(what)


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "file_maker.py").write_text(MAKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("file_maker")
    return "file_maker"


def job(maker: str, function: str, *arguments: str) -> Job:
    return Job(arguments[1], maker, function, arguments, is_kept=False)


def test_a_kernel_that_the_other_process_is_making_is_waited_for(tmp_path: Path, maker: str):
    """The other process begins with the last one, this one ends there, long before it is ready."""
    pairs = [("first", "slow"), ("slow", "first")]
    jobs = [job(maker, "make", str(tmp_path), name, other) for name, other in pairs]
    heard = Heard()
    compile_all(jobs, heard, threads=2)
    assert sorted((tmp_path / "log").read_text().split()[::2]) == ["first", "slow"]
    assert (heard.stages, heard.done) == (["compiling 2 kernels"], ["first", "slow"])


def test_no_kernel_is_made_twice(tmp_path: Path, maker: str):
    names = [str(i) for i in range(8)]
    heard = Heard()
    compile_all([job(maker, "make", str(tmp_path), name) for name in names], heard, threads=2)
    assert sorted(heard.done) == names
    assert sorted((tmp_path / "log").read_text().split()[::2]) == names


@pytest.mark.parametrize("custom", CUSTOMS)
def test_what_a_sitecustomize_does_harms_nobody(tmp_path: Path, maker: str, custom: str):
    (tmp_path / "sitecustomize.py").write_text(CUSTOMS[custom])
    started = time.perf_counter()
    heard = Heard()
    jobs = [job(maker, "make", str(tmp_path), name) for name in ("a", "b", "c")]
    compile_all(jobs, heard, threads=2)
    assert sorted(heard.done) == ["a", "b", "c"]
    assert time.perf_counter() - started < 20  # less than any patience, and far less than what the last one waits


def test_a_second_process_that_hangs_is_given_up(tmp_path: Path, maker: str):
    jobs = [
        job(maker, "wait_for", str(tmp_path), "hangs"),
        job(maker, "make", str(tmp_path), "mine"),
        job(maker, "hang_elsewhere", str(tmp_path), "last", str(os.getpid())),
    ]
    heard = Heard()
    compile_all(jobs, heard, threads=2, patience_s=0.5)
    assert heard.done == ["hangs", "mine", "last"]
    assert (tmp_path / "log").read_text().split()[::2] == ["mine", "last"]


def test_with_one_thread_there_is_no_second_process(tmp_path: Path, maker: str):
    compile_all([job(maker, "make", str(tmp_path), name) for name in ("a", "b", "c")], threads=1)
    assert set((tmp_path / "log").read_text().split()[1::2]) == {str(os.getpid())}
