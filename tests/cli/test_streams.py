"""Every command with streams that are closed, full or left by their reader: one line or quiet work, never a traceback.

Command lines run under `sh`, which closes descriptors as services do: before Python starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.command_lines import Material, make_material
from cli.warm import WarmServer
from hub.loopback import loopback_hub
from patience import HANGS_S
from pythia_gguf.cli.main import COMMANDS

FULL = "stdout is full"
# What a shell writes behind the command line, the exit code, and whether stderr says why.
STREAMS = {
    "all closed": ("<&- >&- 2>&-", 0, False),
    FULL: (">/dev/full", 74, True),
}
ONE = {
    "stdin closed": ("<&-", 0, False),
    "stdout closed": (">&-", 0, False),
    "stderr closed": ("2>&-", 0, False),
    "stderr is full": ("2>/dev/full", 0, False),
    "stdout has lost its reader": ("| true", 1, False),
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with loopback_hub() as hub:
        yield make_material(tmp_path_factory.mktemp("material"), hub)


@pytest.fixture(scope="module")
def server(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    with WarmServer(tmp_path_factory.mktemp("streams"), material.environment) as server:
        yield server


def in_shell(material: Material, arguments: list[str | Path], streams: str) -> tuple[int, str]:
    """Exit code of the command, and what it said on the stderr of the shell."""
    program = [sys.executable, "-m", "pythia_gguf", *map(str, arguments)]
    pipe = "set -o pipefail; " if "|" in streams else ""
    done = subprocess.run(
        ["bash", "-c", f'{pipe}"$@" {streams}', "bash", *program],
        env=material.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )
    return done.returncode, done.stderr


def test_there_is_a_line_for_every_command(material: Material, tmp_path: Path):
    assert list(material.lines(tmp_path)) == list(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("command", COMMANDS)
def test_any_command_with_any_streams(
    material: Material, server: WarmServer, command: str, streams: str, tmp_path: Path
):
    """A full stdout is nothing that Python meets before it has started, so no process has to start for that."""
    behind, code, says_why = STREAMS[streams]
    line = [*command.split(), *material.lines(tmp_path)[command]]
    if streams == FULL:
        done = server.run(line, stdout=Path("/dev/full"))
        got, err = done.returncode, done.stderr
    else:
        got, err = in_shell(material, line, behind)
    assert "Traceback" not in err
    assert got == code, err
    assert ("No space left on device" in err) is says_why
    for written in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"hello" not in written.read_bytes()[:64]
    # Nothing that was printed has gone into a file that got the number of a closed descriptor.
    if command == "quantize":
        assert material.run("verify", [tmp_path], capture_output=True).returncode == 0


@pytest.mark.parametrize("streams", ONE)
@pytest.mark.parametrize("command", ["quants", "verify", "inspect", "nonsense"])
def test_one_stream_is_not_there(material: Material, command: str, streams: str, tmp_path: Path):
    behind, code, _ = ONE[streams]
    got, err = in_shell(material, [command, *material.lines(tmp_path).get(command, [])], behind)
    assert "Traceback" not in err
    assert got == (2 if command == "nonsense" else code), err


ODD = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "TERM": "dumb", "HOME": "", "XDG_CACHE_HOME": ""}


def test_names_that_the_encoding_lacks_without_a_home(material: Material, tmp_path: Path):
    folder = tmp_path / os.fsdecode("Модель (1) ".encode() + b"\xff")
    environment = {k: v for k, v in (material.environment | ODD).items() if v}
    program = [sys.executable, "-m", "pythia_gguf"]
    lines: list[list[str | Path]] = [
        ["quants", folder],
        ["quantize", material.folder / "nano.F16.gguf", "--quants", "Q4_0", "--out", folder],
        ["verify", folder],
        ["inspect", folder / "nano.Q4_0.gguf"],
        ["generate", folder, "\N{SNOWMAN} é", "--max-tokens", "2"],
    ]
    for arguments, code in zip(lines, (74, 0, 0, 0, 0), strict=True):
        done = subprocess.run([*program, *map(os.fsencode, arguments)], env=environment, capture_output=True)
        assert b"Traceback" not in done.stderr
        assert done.returncode == code, (arguments, done.stderr)


def test_a_working_directory_that_was_deleted(material: Material, tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    for command in ("quants", "verify", "inspect", "generate"):
        line = [command, *map(str, material.lines(tmp_path)[command])]
        if command == "quants":
            line = [command]
        run = ["bash", "-c", f'mkdir -p "{gone}"; cd "{gone}"; rmdir "{gone}"; "$@"', "bash", sys.executable, "-P"]
        done = subprocess.run(
            [*run, "-m", "pythia_gguf", *line], env=material.environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == 0, done.stderr
