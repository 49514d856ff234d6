"""One file that must be refused, and what the refusal must say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pythia_gguf.checkpoint import open_checkpoint
from pythia_gguf.errors import ModelFileError, PythiaGGUFError


@dataclass(frozen=True, slots=True)
class Case:
    """name   what is wrong, in words; data  the file; says  a part of the message that names the rule"""

    name: str
    data: bytes
    says: str

    def __str__(self) -> str:
        return self.name


def check_refused(case: Case, path: Path) -> None:
    """Write the file, open its folder, and check the one line that comes out."""
    path.write_bytes(case.data)
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(path.parent)
    check_message(caught.value, path, case.says)


def check_message(error: PythiaGGUFError, path: Path, says: str) -> None:
    """One printable line of bearable length that names the file and the rule."""
    message = str(error)
    assert says in message
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 1000
