"""Typed reads from the keys of a user's file: right type, right range, or one line that names the wrong key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from pythia_gguf.errors import ModelFileError


class Keys:
    """The keys of one file.

    values  key -> value as parsed
    path    the file, for messages
    """

    def __init__(self, values: Mapping[str, object], path: str | os.PathLike[str]) -> None:
        self.values = values
        self.path = path

    def fail(self, message: str, key: str | None = None) -> NoReturn:
        """Raise ModelFileError about a key, or about the file as a whole."""
        raise ModelFileError(message, path=self.path, field=key)

    def get(self, key: str, default: object = None) -> object:
        """The value as it is; `default` when the key is missing or null."""
        value = self.values.get(key)
        return default if value is None else value

    def whole(self, key: str, least: int, most: int) -> int:
        """A required whole number in least..most."""
        value = self._required(key)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            self.fail(f"expected a whole number, got {value!r}", key)
        if not least <= value <= most:
            self.fail(f"expected {least}..{most}, got {value}", key)
        return int(value)

    def number(self, key: str, default: float | None, least: float, most: float) -> float:
        """A number above `least` and at most `most`; required when there is no default."""
        value = self._required(key) if default is None else self.get(key, default)
        return self.check_number(value, key, least, most)

    def check_number(self, value: object, key: str, least: float, most: float) -> float:
        """The value of `key` as a float, when it is a number above `least` and at most `most`."""
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            self.fail(f"expected a number, got {value!r}", key)
        if not least < value <= most:  # also refuses NaN
            self.fail(f"expected a number above {least:g} and at most {most:g}, got {value}", key)
        return float(value)

    def switch(self, key: str, default: bool | None) -> bool:
        """A boolean; required when there is no default."""
        value = self._required(key) if default is None else self.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"expected true or false, got {value!r}", key)
        return value

    def _required(self, key: str) -> object:
        value = self.get(key)
        if value is None:
            self.fail("key is missing", key)
        return value
