"""One writer at a time, also where file systems have no locks: who comes second is told, or waits."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pythia_gguf.errors import LockedError, StorageError
from pythia_gguf.lock import lock

LOCK = ".x.lock"
HOLD = (
    "import sys\nfrom pathlib import Path\nfrom pythia_gguf.lock import lock\n"
    f"with lock(Path(sys.argv[1]) / '{LOCK}'):\n    print('in', flush=True)\n    sys.stdin.read()\n"
)


def test_lock_is_for_one_folder_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    turned_away = pytest.raises(LockedError, match=rf"a: process {os.getpid()} is writing here\. Wait")
    with lock(tmp_path / "a" / LOCK), lock(tmp_path / "b" / LOCK), turned_away:
        lock(tmp_path / "a" / LOCK).__enter__()
    with lock(tmp_path / "a" / LOCK):
        pass
    assert not list(tmp_path.glob("*/*"))


def test_a_killed_process_holds_nobody_up(tmp_path: Path):
    """While it lives, it is named; a later process of that number is not taken for it."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        with pytest.raises(LockedError, match=f"process {process.pid} is writing here"):
            lock(tmp_path / LOCK).__enter__()
        process.kill()
    assert (tmp_path / LOCK).exists()
    with lock(tmp_path / LOCK):
        assert (tmp_path / LOCK).with_suffix(".pid").read_text() == str(os.getpid())
    assert not list(tmp_path.iterdir())


def test_who_waits_is_told_once_and_gets_it_then(tmp_path: Path):
    told: list[str] = []
    is_waiting, entered = threading.Event(), []

    def wait(owner: str) -> None:
        told.append(owner)
        is_waiting.set()

    def second() -> None:
        with lock(tmp_path / "x.lock", wait=wait):
            entered.append(True)

    with lock(tmp_path / "x.lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert is_waiting.wait(60)
        assert not entered
    thread.join(60)
    assert (told, entered) == ([f"process {os.getpid()}"], [True])
    assert not list(tmp_path.iterdir())


def test_file_that_its_owner_removes_is_not_taken_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between opening the file and locking it, the owner leaves and a third process comes: its file is another one."""
    flock = fcntl.flock
    path = tmp_path / LOCK
    path.touch()
    third = []

    def late(fd: int, how: int) -> None:
        if not third:
            third.append(os.open(tmp_path / "new", os.O_RDWR | os.O_CREAT))
            flock(third[0], fcntl.LOCK_EX)
            (tmp_path / "new").replace(path)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(LockedError):
        lock(tmp_path / LOCK).__enter__()
    os.close(third[0])
    with lock(tmp_path / LOCK):
        pass


@pytest.mark.parametrize("without", [errno.ENOSYS, errno.ENOLCK])
def test_without_locks_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: int):
    """Where flock is missing, as on Lustre, a marker is the lock; where it fails, a line says so."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(without, os.strerror(without))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if without == errno.ENOLCK:
        with pytest.raises(StorageError, match=r"cannot write: No locks available"):
            lock(tmp_path / LOCK).__enter__()
        return
    with lock(tmp_path / LOCK):
        with pytest.raises(LockedError, match=f"process {os.getpid()} is writing here"):
            lock(tmp_path / LOCK).__enter__()
        assert (tmp_path / LOCK).exists()
    with lock(tmp_path / LOCK):
        pass
    assert not list(tmp_path.iterdir())
