"""`pythia warmup` as a person meets it: what it says, and that nothing is left to compile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from patience import HANGS_S
from pythia_gguf.cli.main import main
from pythia_gguf.kernels.encode import ENCODABLE

ROOT = Path(__file__).parents[2]


# Runs the command, and tells at the end which files of machine code it has opened.
PROGRAM = """
import sys
opened = set()
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".code") and opened.add(str(args[0])))
from pythia_gguf.cli.main import main
try:
    main()
finally:
    print(*sorted(opened), sep="\\n", file=sys.__stderr__)
"""


@pytest.mark.slow
def test_after_it_no_run_compiles_anything(tmp_path: Path):
    """In a cache that lacks some kernels, and holds none that the command does not ask for itself."""

    def pythia(*args: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | ({} if cache is None else {"PYTHIA_GGUF_CACHE": str(cache)})
        run = [sys.executable, "-c", PROGRAM, *args]
        return subprocess.run(
            run, env=environment, capture_output=True, text=True, check=True, timeout=HANGS_S, cwd=ROOT
        )

    pythia("warmup")
    kept = pythia("warmup").stderr.splitlines()
    asked_for = [Path(line) for line in kept if line.endswith(".code")]
    cache = tmp_path / "cache"
    folder = cache / asked_for[0].parent.name
    folder.mkdir(parents=True)
    missing = {path.name for path in asked_for if path.name.startswith(("q6_k.", "stored_values."))}
    for path in asked_for:
        if path.name not in missing:
            shutil.copy2(path, folder)
    first = pythia("warmup", "--output-format", "json", cache=cache)
    result = json.loads(first.stdout)
    assert "compiling" in first.stderr
    made = {path: path.stat().st_mtime_ns for path in cache.rglob("*.code")}
    assert {path.name for path in made} == {path.name for path in asked_for}
    assert result["compiled"] == len(missing) > 2
    assert len(made) >= len(ENCODABLE) + 3
    assert result["bytes"] == sum(path.stat().st_size for path in made)
    assert result["folders"] == [str(folder)]
    pythia("quantize", "examples/nano", "--out", str(tmp_path / "out"), "--quiet", cache=cache)
    q4 = str(tmp_path / "out" / "nano.Q4_K_M.gguf")
    pythia("generate", q4, "def", "--max-tokens", "2", "--logprobs", "1", cache=cache)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.code")} == made
    again = pythia("warmup", cache=cache).stdout.splitlines()
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
