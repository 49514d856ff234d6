"""What tests of commands share: the entry point, called as the console script calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pythia_gguf.cli.main import main


@pytest.fixture
def pythia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the entry point with arguments; gives exit code, stdout and stderr."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pythia", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            main()
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    return run
