"""What has a final name is on disk: written, fsynced, renamed, and the folder fsynced, in this order for every file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from press import tiny
from pythia_gguf import quantize

QUANTS = "Q4_K_M,Q4_K,Q8_0"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.F16.gguf"
    path.write_bytes(tiny.gguf_bytes(width=32))
    return path


def test_every_file_is_synced_before_its_name_and_its_name_after(model: Path, monkeypatch: pytest.MonkeyPatch):
    """The real calls, noted as they pass: of each the inode, and how much of it there was."""
    calls: list[tuple[str, int, object]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        fsync(fd)
        calls.append(("fsync", os.fstat(fd).st_ino, os.fstat(fd).st_size))

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        calls.append(("replace", os.stat(target).st_ino, Path(target)))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    out = model.parent / "out"
    quantize(model, out, quants=QUANTS, keep_f16=True, threads=2)
    names = sorted(out.iterdir())
    assert len(names) == 7
    for path in names:
        inode, n_bytes = path.stat().st_ino, path.stat().st_size
        named = calls.index(("replace", inode, path))
        assert ("fsync", inode, n_bytes) in calls[:named], path
        assert ("fsync", inode) not in [call[:2] for call in calls[named:]], path
        assert ("fsync", out.stat().st_ino) in [call[:2] for call in calls[named:]], path
    # The manifest is the last: when it has its name, all other names are on disk.
    last = calls.index(("replace", (out / "manifest.json").stat().st_ino, out / "manifest.json"))
    assert calls[last - 1][:2] == ("fsync", out.stat().st_ino)
    assert [call[0] for call in calls[last:]] == ["replace", "fsync"]


@pytest.mark.campaign
@pytest.mark.parametrize("strace", [path] if (path := shutil.which("strace")) else [])
def test_system_calls_are_in_that_order(model: Path, strace: str):
    """As the kernel sees them: per file the last write, then fsync, then rename, then fsync of the folder."""
    log = model.parent / "strace.txt"
    run = [sys.executable, "-m", "pythia_gguf", "quantize", model.name, "--out", "out", "--quants", QUANTS, "--quiet"]
    trace = [strace, "-f", "-y", "-o", str(log), "-e", "trace=write,fsync,rename,renameat,renameat2,link,linkat"]
    subprocess.run([*trace, *run], cwd=model.parent, check=True)
    lines = log.read_text().splitlines()
    out = model.parent / "out"
    for path in sorted(out.iterdir()):
        staged = f"out/.pythia-press/{path.name}"
        moved = only(lines, rf'rename\w*\(.*"{re.escape(staged)}".*"out/{re.escape(path.name)}"')
        linked = [line for line in lines[:moved] if re.search(rf'link.*"{re.escape(staged)}"', line)]
        if not linked:
            named = only(lines, rf'rename\w*\(.*"out/\.pythia-press/\.{re.escape(path.name)}\.\S+\.partial"')
            partial = rf"<[^>]*/\.{re.escape(path.name)}\.[^>/]*\.partial>"
            writes = [i for i, line in enumerate(lines) if re.search(rf"write\(\d+{partial}", line)]
            assert max(writes) < only(lines, rf"fsync\(\d+{partial}") < named < moved
        assert any(re.search(rf"fsync\(\d+<{re.escape(str(out))}>", line) for line in lines[moved:])


def only(lines: list[str], pattern: str) -> int:
    """The number of the one line that matches."""
    (found,) = (i for i, line in enumerate(lines) if re.search(pattern, line))
    return found
