"""`pythia warmup` as a person meets it: what it says, and that nothing is left to compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pythia_gguf.cli.main import main
from pythia_gguf.kernels.encode import ENCODABLE

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_after_it_no_run_compiles_anything(tmp_path: Path):
    def pythia(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pythia_gguf", *args],
            env=os.environ | {"PYTHIA_GGUF_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            cwd=ROOT,
        )

    first = pythia("warmup", "--output-format", "json")
    result = json.loads(first.stdout)
    assert "compiling" in first.stderr
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.code")}
    assert result["compiled"] == len(made) >= len(ENCODABLE) + 3
    assert result["bytes"] == sum(path.stat().st_size for path in made)
    assert result["folders"] == [str(next(iter(made)).parent)]
    pythia("quantize", "examples/nano", "--out", str(tmp_path / "out"), "--quiet")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.code")} == made
    again = pythia("warmup").stdout.splitlines()
    assert again[0].startswith("all kernels were compiled already, loaded in ")
    assert again[1] == f"kept in {result['folders'][0]}, {result['bytes']:,} bytes"


def test_without_a_place_to_keep_kernels_it_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["pythia", "warmup"])
    with pytest.raises(SystemExit) as good:
        main()
    assert good.value.code == 0
    capsys.readouterr()
    # Everything is loaded in this process now, so the second call has nothing to compile and nothing to show.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as bad:
        main()
    assert bad.value.code == 74
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "Error: no compiled kernel could be kept: set PYTHIA_GGUF_CACHE to a folder that can be written"
