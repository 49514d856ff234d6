"""One at a time: a lock that the system takes back when its process dies, however it dies.

Another file beside the lock file holds the process id, so that others can say who holds the lock.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pythia_gguf.errors import Argument, LockedError
from pythia_gguf.files import storage_error


@contextlib.contextmanager
def lock(path: Path, *, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock while the block runs; its file is removed at the end.

    wait    hears once who holds the lock, as "process 123", before we wait for it; None: do not wait
    Raises  LockedError when another holds it and `wait` is None, StorageError when the file cannot be made
    """
    held, owner = FileLock(path), path.with_suffix(".pid")
    try:
        try:
            _acquire(held, path, wait)
        except OSError as e:
            raise storage_error(path, e) from e
        _write_pid(owner)
        yield
    finally:
        _tidy(held, path)


def _tidy(held: FileLock, path: Path) -> None:
    """Release the lock and remove its files, also when we were only taking it; leave the files of another holder."""
    with contextlib.suppress(Timeout, OSError):
        held.acquire(blocking=False)
    if held.is_locked:
        _remove(path.with_suffix(".pid"))
        # We remove the file while we hold it: a process that waits for a file that is gone looks for a new one. A file
        # that is not empty is the marker on a file system without locks, which the library removes.
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
        held.release(force=True)


def holder(path: Path) -> str:
    """The process that holds a lock, as "process 123"."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (pid := path.with_suffix(".pid").read_text("ascii")).isdigit():
            return f"process {pid}"
    return "another process"


def _acquire(held: FileLock, path: Path, wait: Callable[[str], None] | None) -> None:
    with warnings.catch_warnings():
        # Without locks of the file system, filelock makes a marker the lock, and takes over those of dead processes.
        warnings.filterwarnings("ignore", "flock not supported", UserWarning)
        try:
            held.acquire(blocking=False)
        except Timeout:
            if wait is None:
                raise LockedError(
                    f"{path.parent}: {holder(path)} is writing here. Wait until it has ended",
                    (", or choose another ", Argument("out")),
                ) from None
            wait(holder(path))
            held.acquire(poll_interval=0.1)


def _write_pid(path: Path) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(fd, str(os.getpid()).encode())
        finally:
            os.close(fd)
    except OSError as e:
        raise storage_error(path, e) from e


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
