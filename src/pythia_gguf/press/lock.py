"""One writer per folder: a lock that the system takes back when its process dies, however it dies.

Knows nothing of what is written. The lock file holds the process id, for the line that others get.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pythia_gguf.errors import Argument, LockedError
from pythia_gguf.files import storage_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".pythia-press.lock"
# Windows keeps others from reading what is locked: so a byte that is not there, far behind the process id.
_LOCKED_BYTE = 1 << 30
_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """While the block runs, nobody else enters one for this folder; other folders are not concerned.

    Where the file system has no locks (Lustre may have none), the file itself is the lock: a process that is killed
    leaves it behind, and the next one is told what to do.
    Raises LockedError at once when somebody is there, StorageError when the lock file cannot be made.
    """
    path = folder / LOCK
    fd = _acquire(path)
    try:
        _write_pid(fd, path)
        yield
    finally:
        _release(fd, path)


def _acquire(path: Path) -> int:
    """The lock file, open and locked; not one that its last owner has removed meanwhile."""
    while True:
        fd, is_new = _open(path)
        try:
            _lock(fd, path, is_new)
            if _is_same(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: Path) -> tuple[int, bool]:
    """Descriptor, and whether the file was not there before."""
    flags = os.O_RDWR | os.O_CREAT
    try:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_EXCL, 0o666), True
        return os.open(path, flags, 0o666), False
    except OSError as e:
        raise storage_error(path, e) from e


def _lock(fd: int, path: Path, is_new: bool) -> None:
    """Raises LockedError when another process has the lock."""
    try:
        if sys.platform == "win32":
            os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in _HELD:
            raise LockedError(
                f"{path.parent}: {_owner(fd)} is writing here. Wait until it has ended",
                (", or choose another ", Argument("out")),
            ) from e
        if not is_new:
            raise LockedError(
                f"{path.parent}: {_owner(fd)} is writing here, or was killed: this file system has no locks."
                f" If it is not running any more, delete {path}"
            ) from e


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    pid = os.read(fd, 20)
    return f"process {pid.decode()}" if pid.isdigit() else "another process"


def _write_pid(fd: int, path: Path) -> None:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, str(os.getpid()).encode())
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
    except OSError as e:
        raise storage_error(path, e) from e


def _release(fd: int, path: Path) -> None:
    """Remove the file while it is locked; Windows can only do so after, unless somebody has opened it already."""
    if sys.platform == "win32":
        os.close(fd)
    with contextlib.suppress(OSError):
        path.unlink()
    if sys.platform != "win32":
        os.close(fd)
