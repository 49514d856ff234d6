"""The file that a long run writes at its end: checked before the first token, and written by one run at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pythia_gguf.errors import Argument, LockedError, StorageError, one_line
from pythia_gguf.evals.state import state_path
from pythia_gguf.files import check_file_place
from pythia_gguf.lock import holder, lock


@contextlib.contextmanager
def alone_with(out: Path | None) -> Iterator[None]:
    """Let one process at a time enter the block for this file, and check that it can be written; None guards nothing.

    Raises StorageError where it cannot be written, LockedError at once when another run is there.
    """
    if out is None:
        yield
        return
    check_file_place(out)
    check_file_place(state_path(out))
    path = out.with_name(f".{out.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(path))
        except LockedError as e:
            raise LockedError(
                f"{one_line(str(out))}: {holder(path)} is going to write this file. Wait until it has ended",
                (", or choose another ", Argument("out")),
            ) from e
        yield


def refuse_to_lose(out: Path | None, force: bool, what_is_lost: Callable[[Path], str | None]) -> None:
    """Raise StorageError when a file exists and would be replaced by one that does not say what it says.

    what_is_lost  takes the file and returns None when nothing is lost, else what to say about it
    """
    if out is not None and not force and out.exists() and (lost := what_is_lost(out)) is not None:
        raise StorageError(
            f"{one_line(str(out))} exists" + (f" and {lost}" if lost else ""),
            (". Use ", Argument("force", True), " to replace it"),
            (", or choose another ", Argument("out")),
        )


def write_and_show(write: Callable[[], None], show: Callable[[], None]) -> None:
    """Write a result, and show it whatever happens to the file; raises as `write` does."""
    try:
        write()
    finally:
        show()
