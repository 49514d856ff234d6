"""Two processes that compile: none makes what the other is making.

Kernels are stood in for by files that take a while; the processes are real.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from pythia_gguf.kernels.compiling import Job, compile_all

MAKER = '''
"""Makes files as kernels are made: once, found by whoever comes later, and begun by both before one goes on."""
import hashlib
from pathlib import Path

def make(folder, name, awaited):
    made, log = Path(folder, name), Path(folder, "log")
    if made.exists():
        return
    with log.open("a") as file:
        file.write(name + "\\n")
    while awaited not in log.read_text().split():
        pass
    hashlib.pbkdf2_hmac("sha256", b"", b"", {"first": 300_000, "slow": 2_000_000}[name])
    made.touch()
'''


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "file_maker.py").write_text(MAKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("file_maker")
    return "file_maker"


def test_a_kernel_that_the_other_process_is_making_is_waited_for(tmp_path, maker):
    """The other process begins with the last one, this one ends there, long before it is ready."""
    pairs = [("first", "slow"), ("slow", "first")]
    jobs = [Job(name, maker, "make", (str(tmp_path), name, other), is_kept=False) for name, other in pairs]
    heard: list[str] = []
    compile_all(jobs, lambda name, n: heard.append(name))
    assert sorted((tmp_path / "log").read_text().split()) == ["first", "slow"]
    assert heard == ["first", "slow"]
