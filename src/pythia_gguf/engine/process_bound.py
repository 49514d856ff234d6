"""A base for objects that cannot go to another process, because they have threads, or memory that others point into."""

from __future__ import annotations

from typing import Any


class ProcessBound:
    """Base of classes whose objects cannot be pickled or copied; the error says what to do instead."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: it is memory and threads of this process. In"
            " another process load the file again, by the model's path, or fork after it was loaded; threads may share"
            " a model"
        )
