"""A run that is killed, stopped or out of space at any step leaves whole files only, and the next run finishes the job.

What must be there comes from runs that nothing happened to. Steps are those of `fork_server.py`.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from press import tiny
from press.forks import FILES, FORCE, QUANTIZE, Forks, Run, contents, spread
from pythia_gguf import verify

TEXTS = ("README.md", "SHA256SUMS", "manifest.json")


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as server:
        yield server


@pytest.fixture(scope="module")
def whole(forks: Forks) -> tuple[Run, dict[str, bytes]]:
    """A run that nothing happened to, and what it wrote."""
    run = forks.run(forks.folder / "whole")
    assert run.code == 0, run.err
    made = contents(forks.folder / "whole" / "out")
    assert sorted(made) == sorted([*FILES, *TEXTS])
    return run, made


@pytest.fixture(scope="module")
def older(forks: Forks) -> dict[str, bytes]:
    """The folder of another model whose files have the same names."""
    (forks.folder / "older").mkdir()
    other = tiny.gguf_bytes(width=32, keys={"general.name": "Older"})
    (forks.folder / "older" / "m.F16.gguf").write_bytes(other)
    run = forks.run(forks.folder / "older" / "run")
    assert run.code == 0
    return contents(forks.folder / "older" / "run" / "out")


@pytest.fixture(scope="module")
def forced(forks: Forks, older: dict[str, bytes]) -> tuple[Run, dict[str, bytes]]:
    """A run with --force over that folder."""
    cwd = forks.folder / "forced"
    place(cwd / "out", older)
    run = forks.run(cwd, FORCE)
    assert run.code == 0, run.err
    return run, contents(cwd / "out")


def kills(steps: list[str], n: int) -> list[int]:
    """Half of them before the first fsync, half from there on, where files get their names."""
    first = steps.index("fsync") + 1
    return spread(n // 2, 1, first - 1) + spread(n // 2, first, len(steps))


def place(folder: Path, files: dict[str, bytes]) -> None:
    """A folder that holds these files."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def check_consistent(out: Path, *allowed: dict[str, bytes]) -> dict[str, bytes]:
    """Every final name holds a whole file of one of these folders, and the texts tell of the files beside them."""
    found = {name: data for name, data in contents(out).items() if not name.startswith(".")} if out.exists() else {}
    for name, data in found.items():
        assert data in [files[name] for files in allowed], name
    for files in allowed:
        if any(found.get(text) == files[text] for text in TEXTS):
            assert all(found[name] == files[name] for name in FILES if name in found)
    if "manifest.json" in found:
        assert [v.fault for v in verify(out) if v.file in found and v.fault] == []
    return found


def check_finished(forks: Forks, cwd: Path, made: dict[str, bytes], args: tuple[str, ...] = QUANTIZE) -> Run:
    """The next run ends well and leaves exactly what a run leaves that nothing happened to."""
    run = forks.run(cwd, args)
    assert (run.code, run.err) == (0, "")
    assert contents(cwd / "out") == made
    assert not [p for p in (cwd / "out").iterdir() if p.name.startswith(".")]
    return run


def survive_kill(forks: Forks, cwd: Path, at: int, made: dict[str, bytes]) -> None:
    """Kill a first run; once all files are on disk, the next one makes none of them again."""
    assert forks.run(cwd, QUANTIZE, at=at).code == -signal.SIGKILL
    check_consistent(cwd / "out", made)
    was_complete = any((cwd / "out" / name).exists() for name in ("manifest.json", ".pythia-press/manifest.json"))
    run = check_finished(forks, cwd, made)
    assert ("Kept: all files" in run.out) == was_complete


def survive_kill_while_replacing(
    forks: Forks, cwd: Path, at: int, older: dict[str, bytes], made: dict[str, bytes]
) -> None:
    """Kill a run that replaces other files: each name holds the one or the other."""
    place(cwd / "out", older)
    assert forks.run(cwd, FORCE, at=at).code == -signal.SIGKILL
    check_consistent(cwd / "out", older, made)
    check_finished(forks, cwd, made, FORCE)


def test_killed_run_leaves_whole_files_and_the_next_one_finishes(forks, whole):
    run, made = whole
    for at in kills(run.steps, 40):
        survive_kill(forks, forks.folder / f"kill{at}", at, made)


def test_killed_replacement_leaves_each_file_old_or_new(forks, forced, older):
    run, made = forced
    for at in kills(run.steps, 20):
        survive_kill_while_replacing(forks, forks.folder / f"replace{at}", at, older, made)


def test_run_that_is_killed_while_it_finishes_another_is_finished_too(forks, whole):
    """Both die while files get their names: the first after the manifest is staged, the second a little later."""
    run, made = whole
    last_replace = len(run.steps) - run.steps[::-1].index("replace")
    for at in range(1, 30, 3):
        cwd = forks.folder / f"twice{at}"
        assert forks.run(cwd, QUANTIZE, at=last_replace - 12).code == -signal.SIGKILL
        assert forks.run(cwd, QUANTIZE, at=at).code == -signal.SIGKILL
        check_consistent(cwd / "out", made)
        check_finished(forks, cwd, made)


def survive_full_disk(forks: Forks, cwd: Path, at: int, harm: str, older: dict[str, bytes]) -> None:
    """One line, exit code 74, and nothing has changed."""
    place(cwd / "out", older)
    run = forks.run(cwd, FORCE, at=at, harm=harm)
    (cwd / "hog").unlink(missing_ok=True)
    assert run.code == 74, run
    full = r"out/\S+: cannot write: (File too large|No space left on device\. Free some space and run again)"
    assert re.fullmatch(rf"Error: ({full}|out: the files need [\d,]+ bytes, 0 are free\. .*)\n", run.err)
    assert contents(cwd / "out") == older


@pytest.fixture
def small_disk(forks: Forks, tmp_path: Path) -> Iterator[Path | None]:
    """A disk of 4 MiB with the model on it, where this process may mount one."""
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True)
    if mount.returncode != 0:
        yield None
        return
    shutil.copy(forks.folder / "m.F16.gguf", tmp_path)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_file_that_may_not_grow_leaves_everything_as_it_was(forks, forced, older):
    run, made = forced
    for at in spread(10, 1, last_write(run)):
        survive_full_disk(forks, forks.folder / f"limit{at}", at, "limit", older)
        check_finished(forks, forks.folder / f"limit{at}", made, FORCE)


def test_full_disk_leaves_everything_as_it_was(forks, forced, older, small_disk):
    """The disk is filled to the last byte by somebody else; without the right to mount one, files may not grow."""
    run, made = forced
    harm = "fill" if small_disk else "limit"
    for at in spread(10, 2, last_write(run) - 1):
        cwd = (small_disk or forks.folder) / f"{harm}{at}"
        survive_full_disk(forks, cwd, at, harm, older)
        check_finished(forks, cwd, made, FORCE)
        shutil.rmtree(cwd)


def last_write(run: Run) -> int:
    """The step with which the last write begins: it ends with the last one of that name."""
    return len(run.steps) - run.steps[::-1].index("write") - 1


def test_second_writer_is_turned_away_by_the_first(forks, whole):
    """Five pairs that meet at different steps; the one that came first ends as if it had been alone."""
    run, made = whole
    got_lock = run.steps.index("mkdir", run.steps.index("flock")) + 1
    leaves = len(run.steps) - 1 - run.steps[::-1].index("rmdir") - 1  # then its number goes, and the lock
    for at in spread(5, got_lock, leaves):
        cwd = forks.folder / f"pair{at}"
        first = forks.run(cwd, QUANTIZE, at=at, harm="stop")
        assert first.code == -signal.SIGSTOP
        second = forks.run(cwd, FORCE)
        assert second.code == 75
        assert second.err.startswith(f"Error: out: process {first.pid} is writing here. ")
        assert second.err.count("\n") == 1
        assert forks.run(cwd, (*QUANTIZE[:3], "elsewhere", *QUANTIZE[4:])).code == 0
        assert forks.go_on(first).code == 0
        assert contents(cwd / "out") == made


def test_lock_of_a_killed_process_holds_nobody_up(forks, whole):
    _, made = whole
    cwd = forks.folder / "dead"
    assert forks.run(cwd, QUANTIZE, at=60).code == -signal.SIGKILL
    assert (cwd / "out" / ".pythia-press.lock").exists()
    check_finished(forks, cwd, made)


@pytest.mark.campaign
def test_kill_at_every_step(forks, whole):
    run, made = whole
    for at in range(1, len(run.steps) + 1):
        survive_kill(forks, forks.folder / f"every{at}", at, made)


@pytest.mark.campaign
def test_kill_of_a_replacement_at_every_step(forks, forced, older):
    run, made = forced
    for at in range(1, len(run.steps) + 1):
        survive_kill_while_replacing(forks, forks.folder / f"each{at}", at, older, made)


@pytest.mark.campaign
@pytest.mark.parametrize("harm", ["limit", "fill"])
def test_full_disk_at_every_step(forks, forced, older, small_disk, harm):
    run, made = forced
    home = small_disk if small_disk and harm == "fill" else forks.folder
    for at in range(1, last_write(run)):
        cwd = home / f"full-{harm}{at}"
        survive_full_disk(forks, cwd, at, "fill" if home == small_disk else "limit", older)
        check_finished(forks, cwd, made, FORCE)
        shutil.rmtree(cwd)


@pytest.mark.campaign
def test_pairs_that_start_together_never_mix(forks, whole, tmp_path):
    """Fifty pairs of processes: one or both make the folder, one after the other; nobody fails otherwise."""
    _, made = whole
    (tmp_path / "m.F16.gguf").write_bytes((forks.folder / "m.F16.gguf").read_bytes())
    codes = set()
    for i in range(50):
        cwd = tmp_path / str(i)
        cwd.mkdir()
        command = [sys.executable, "-m", "pythia_gguf", *QUANTIZE, "--quiet"]
        pair = [subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        told = [run.communicate()[1].count("\n") for run in pair]
        codes |= {(run.returncode, lines) for run, lines in zip(pair, told, strict=True)}
        assert 0 in [run.returncode for run in pair]
        assert contents(cwd / "out").keys() == made.keys()
        assert not [v for v in verify(cwd / "out") if v.fault]
    assert codes <= {(0, 0), (75, 1)}
