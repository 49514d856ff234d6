"""Files as this project reads and writes them: positional reads of regular files, writes that appear whole.

Reads go through `pread`, not a memory map: mapped pages count as our memory, and a file that another process cuts short
would kill us with SIGBUS instead of raising an error.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pythia_gguf.errors import ModelFileError, StorageError, one_line

CHUNK_BYTES = 4 << 20
# What `write_beside` calls a file until it is whole.
PARTIAL = re.compile(r"\..+\.[0-9]+\.[0-9a-f]{8}\.partial")
_ABANDONED_S = 86400


class ReadableFile:
    """Base class of open files, which threads may read at any position at the same time; subclasses define `read_into`.

    path    where it is, for messages
    size    bytes, when it was opened
    """

    path: Path
    size: int

    def read(self, offset: int, n_bytes: int) -> bytearray:
        """Exactly `n_bytes` from `offset`; raises ModelFileError when the file ends before."""
        if offset < 0 or n_bytes < 0:
            raise ValueError(f"offset {offset} and length {n_bytes} must not be negative")
        if n_bytes > self.size - offset:
            raise ModelFileError(
                f"file is cut short: expected {n_bytes} bytes, {max(0, self.size - offset)} left",
                path=self.path,
                offset=offset,
            )
        out = bytearray(n_bytes)
        self.read_into(offset, out)
        return out

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`; raises ModelFileError when the file ends before."""
        raise NotImplementedError

    def close(self) -> None:
        """No more reads; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileElsewhere:
    """A file that is read where it lies, without a copy here.

    open     opens it
    n_bytes  its size
    sha256   as its owner lists it; not checked here
    """

    open: Callable[[], ReadableFile]
    n_bytes: int
    sha256: str


class RegularFile(ReadableFile):
    """An open regular file of this machine."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises StorageError when it cannot be opened, ModelFileError when it is not a regular file."""
        self.path = Path(path)
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        # O_NONBLOCK: opening a FIFO must answer "not a regular file", not wait for a writer.
        flags |= getattr(os, "O_NONBLOCK", 0)
        try:
            self._fd = os.open(self.path, flags)
        except OSError as e:
            raise StorageError(f"{one_line(str(self.path))}: cannot open: {e.strerror}") from e
        except ValueError as e:  # a zero byte, or half of a surrogate pair
            raise StorageError(f"{one_line(str(self.path))}: no file can have such a name") from e
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise ModelFileError("not a regular file", path=path)
        self.size = status.st_size
        self._seek_lock = threading.Lock()

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`; raises ModelFileError when the file ends before."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            got = self._read_some(offset + done, view[done:])
            if got == 0:
                raise ModelFileError(
                    f"file became shorter while it was read: expected {len(view)} bytes, got {done}",
                    path=self.path,
                    offset=offset,
                )
            done += got

    def _read_some(self, offset: int, view: memoryview) -> int:
        try:
            if hasattr(os, "preadv"):
                return os.preadv(self._fd, [view], offset)
            with self._seek_lock:
                os.lseek(self._fd, offset, os.SEEK_SET)
                part = os.read(self._fd, len(view))
        except OSError as e:
            raise StorageError(f"{self.path}: read failed at byte {offset}: {e.strerror}") from e
        view[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """All of a regular file; raises as `RegularFile` does."""
    with RegularFile(path) as file:
        return bytes(file.read(0, file.size))


def sha256_range(
    file: RegularFile, start: int, n_bytes: int, advance: Callable[[int], None] = lambda n_bytes: None
) -> str:
    """SHA-256 of `n_bytes` from `start` as 64 hexadecimal digits; `advance` hears of every chunk that is done."""
    digest = hashlib.sha256()
    feed(file, start, n_bytes, [digest], advance)
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike[str], advance: Callable[[int], None] = lambda n_bytes: None) -> str:
    """SHA-256 of a whole file; raises as `RegularFile` does."""
    with RegularFile(path) as file:
        return sha256_range(file, 0, file.size, advance)


def feed(
    file: ReadableFile,
    start: int,
    n_bytes: int,
    digests: Sequence[hashlib._Hash],
    advance: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Feed `n_bytes` from `start` to several hashes, reading them once; `advance` hears of every chunk that is done."""
    buffer = bytearray(min(CHUNK_BYTES, max(1, n_bytes)))
    for at in range(start, start + n_bytes, len(buffer)):
        view = memoryview(buffer)[: min(len(buffer), start + n_bytes - at)]
        file.read_into(at, view)
        for digest in digests:
            digest.update(view)
        advance(len(view))


@contextlib.contextmanager
def write_beside(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` only when the block ends well: written beside, fsynced, renamed.

    On any exception the partial file is removed and what stood under `path` before is untouched. Partial files that
    killed processes have left in the same folder are removed first.
    Raises StorageError for what the disk refuses (full, read-only, missing folder).
    """
    final = Path(path)
    remove_abandoned(final.parent)
    partial = final.with_name(f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        # 1. The caller writes under a hidden name; the lock tells other processes that the file is not abandoned.
        with _open_locked(partial) as raw:
            yield raw
            # 2. The bytes must be on the disk before the name is: after a power cut the name holds a whole file.
            os.fsync(raw.fileno())
            if os.name == "nt":  # renames no open file
                raw.close()
            os.replace(partial, final)
        # 3. Only now does the rename itself survive a power cut.
        fsync_folder(final.parent)
    except OSError as e:
        raise storage_error(final, e) from e
    finally:
        partial.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the partial files in a folder whose process was killed.

    A file that is being written is locked, and the system takes the lock away with the process, in another container
    or on another machine too. Where a file system knows no locks, a file counts as abandoned after a day.
    """
    try:
        names = [name for name in os.listdir(folder) if PARTIAL.fullmatch(name)]
    except OSError:  # the next write there will fail and say why
        return
    for name in names:
        with contextlib.suppress(OSError):  # it is being written, or another process was first
            _remove_if_abandoned(folder / name)


def _remove_if_abandoned(partial: Path) -> None:
    # Do not follow a link, and do not wait for the other end of a FIFO.
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(partial, flags)
    try:
        if not _lock(fd) and time.time() - os.fstat(fd).st_mtime < _ABANDONED_S:
            return
        if os.name != "nt":
            partial.unlink()
    finally:
        os.close(fd)
    if os.name == "nt":  # there a file that any process has open cannot be removed: that is the lock
        partial.unlink()


def _open_locked(partial: Path) -> BinaryIO:
    """A new, locked file; it is made again when another process took it for abandoned before the lock."""
    while True:
        raw = open(partial, "xb", buffering=0)  # noqa: SIM115 - the caller's
        _lock(raw.fileno(), wait=True)
        if os.name == "nt" or os.path.exists(partial):
            return raw
        raw.close()


def _lock(fd: int, *, wait: bool = False) -> bool:
    """Whether the file system could lock a file for this process; raises BlockingIOError when another has it."""
    if os.name == "nt":
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:  # this file system has no locks
        return False
    return True


def check_file_place(path: str | os.PathLike[str]) -> None:
    """Raise StorageError where `write_beside` could not write: before long work, not after it."""
    final = Path(path)
    if os.path.isdir(final) or not os.path.isdir(final.absolute().parent):
        raise StorageError(f"{one_line(str(final))}: not a file in a folder that exists")
    if os.path.exists(final) and not os.path.isfile(final):
        raise StorageError(f"{one_line(str(final))}: is not a regular file, and would be replaced by one")
    # As long as the name that `write_beside` writes under.
    _try_to_write(final, final.parent, f".{final.name}.{os.getpid()}.")


def check_folder_place(path: str | os.PathLike[str]) -> None:
    """Raise StorageError where no files can be written into a folder, or it cannot be made; makes nothing."""
    final = Path(path)
    try:
        os.lstat(final)
    except (FileNotFoundError, NotADirectoryError):  # it will be made, or its nearest parent says why not
        pass
    except OSError as e:
        raise storage_error(final, e) from e
    nearest = next(p for p in (final.absolute(), *final.absolute().parents) if os.path.exists(p))
    if not nearest.is_dir():
        which = "" if nearest == final.absolute() else f"{one_line(str(nearest))} "
        raise StorageError(f"{one_line(str(final))}: {which}is a file, expected a folder")
    _try_to_write(final, nearest, ".pythia-gguf.")


def _try_to_write(final: Path, folder: Path, prefix: str) -> None:
    """Make a file in a folder and remove it."""
    try:
        fd, made = tempfile.mkstemp(prefix=prefix, suffix=".partial", dir=folder)
    except OSError as e:
        raise storage_error(final, e) from e
    except ValueError as e:  # a zero byte, or half of a surrogate pair
        raise StorageError(f"{one_line(str(final))}: no file can have such a name") from e
    os.close(fd)
    Path(made).unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with write_beside(path) as out:
        write_all(out, text.encode("utf-8"))


def write_all(out: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    """Write every byte to an unbuffered file, which may take fewer than it is given."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[out.write(view) :]


def bypass_cache(file: BinaryIO, *, on: bool) -> bool:
    """Turn copies in the page cache off or on again for writes to a file; returns whether they are off now.

    While they are off, each write must be whole sectors from memory that begins on one. Only Linux can do this, and not
    on every file system.
    """
    if not hasattr(os, "O_DIRECT"):
        return False
    import fcntl

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return on


def fsync_folder(folder: Path) -> None:
    """Make a rename durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The operating system's refusal as one line with what to do."""
    hint = {
        errno.ENOSPC: ". Free some space and run again",
        errno.EDQUOT: ". Your quota is used up",
        errno.EROFS: ". The file system is read-only: choose another place",
        errno.EACCES: ". Choose another place",
        errno.ENOENT: ". Does the folder exist?",
    }.get(error.errno or 0, "")
    return StorageError(f"{path}: cannot write: {error.strerror or error}{hint}")


def cache_root() -> Path:
    """PYTHIA_GGUF_CACHE, else where this platform keeps caches."""
    if own := os.environ.get("PYTHIA_GGUF_CACHE"):
        return Path(os.path.expanduser(own))
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():  # there is none: a place that can be neither made nor read
        home = Path(os.devnull)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "pythia-gguf"
