"""One writer per folder, also where locks are not to be had."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pythia_gguf.errors import LockedError
from pythia_gguf.press.lock import LOCK, lock_folder


def test_lock_is_for_one_folder_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with lock_folder(tmp_path / "a"), lock_folder(tmp_path / "b"):
        assert (tmp_path / "a" / LOCK).read_text() == str(os.getpid())
        with pytest.raises(LockedError, match=rf"a: process {os.getpid()} is writing here\. Wait"):
            lock_folder(tmp_path / "a").__enter__()
    with lock_folder(tmp_path / "a"):
        pass
    assert not list(tmp_path.glob("*/*"))


def test_lock_file_without_a_lock_is_of_a_dead_process(tmp_path: Path):
    (tmp_path / LOCK).write_text("99999999999")
    with lock_folder(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


def test_file_that_its_owner_removes_is_not_taken_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between our open and our lock the owner leaves and a third process comes: its file is another one."""
    flock = fcntl.flock
    path = tmp_path / LOCK
    path.touch()

    def late(fd: int, how: int) -> None:
        if path.exists() and os.path.samestat(os.fstat(fd), os.stat(path)):
            monkeypatch.setattr(fcntl, "flock", flock)
            path.rename(tmp_path / "old")
            path.touch()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock_folder(tmp_path):
        assert path.read_text() == str(os.getpid())
        assert (tmp_path / "old").read_text() == ""


def test_without_locks_the_file_is_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system that answers flock as Lustre does without its mount option."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path):
        with pytest.raises(LockedError) as caught:
            lock_folder(tmp_path).__enter__()
        assert f"process {os.getpid()} is writing here, or was killed" in str(caught.value)
        assert f"delete {tmp_path / LOCK}" in str(caught.value)
        assert (tmp_path / LOCK).exists()
    with lock_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
