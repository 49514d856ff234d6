"""Commands ended from outside in the middle of their work: by signals, tidied up; killed, tidied up by the next run.

The moment is chosen by an audit hook of Python: the process sends itself the signal when it opens or renames a file
of a certain name, connects to the hub or starts a process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.command_lines import NANO, Material, make_material
from cli.warm import WarmServer
from hub.loopback import loopback_hub
from kept_kernels import copy_kernels
from patience import HANGS_S
from pythia_gguf.cli.main import COMMANDS

PROGRAM = """
import os, sys
number, event, what, *arguments = sys.argv[1:]
def hook(name, args, sent=[]):
    if name == event and what in str(args) and not sent:
        sent.append(1)
        os.kill(os.getpid(), int(number))
sys.addaudithook(hook)
sys.argv = ["pythia", *arguments]
from pythia_gguf.cli.main import main
main()
"""
# Whoever runs the tests in the background may have told them to ignore these signals.
HEARD = """
import signal
for each in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(each, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
# Command -> when it is in the middle of its work. The others are done at once.
MOMENTS = {
    "pull": ("socket.connect", "127.0.0.1"),
    "check-revisions": ("socket.connect", "127.0.0.1"),
    "quantize": ("open", ".partial"),
    "imatrix": ("open", "nano.F16.gguf"),
    "verify": ("open", "nano.Q8_0.gguf"),
    "generate": ("open", "nano.Q4_0.gguf"),
    "serve": ("open", "nano.Q4_0.gguf"),
    "score": ("open", "nano.Q4_0.gguf"),
    "measure": ("open", "nano.Q4_0.gguf"),
    "eval": ("open", "nano.Q4_0.gguf"),
    "plot": ("open", "report.json"),
    "card": ("open", ".partial"),
    "bench": ("open", "nano.Q4_0.gguf"),
    "export": ("open", ".partial"),
    "publish": ("open", "nano.Q8_0.gguf"),
    "train": ("open", "corpus.bin"),
    "replay": ("open", "corpus.bin"),
    "data tokenize": ("open", "tokens"),
    "data dedup": ("open", "lines"),
    "data order": ("open", ".partial"),
    "data view": ("socket.connect", "127.0.0.1"),
    "data pull": ("open", "tokens"),
    "data index": ("open", "array"),
    "data effect": ("open", "nano.Q4_0.gguf"),
    "data stats": ("open", "corpus.idx"),
    "warmup": ("subprocess.Popen", ""),
}
AT_ONCE = {"models", "quants", "inspect", "data find", "data trace", "data corpus", "cache", "doctor"}
# Command -> a file that it writes, relative to where it writes.
WRITTEN = {
    "quantize": "nano.Q4_0.gguf",
    "imatrix": "imatrix.gguf",
    "measure": "report.json",
    "eval": "results.json",
    "plot": "divergence.png",
    "data effect": "effect.png",
    "train": "run/log.csv",
    "card": "README.md",
    "export": "hf/model.safetensors",
    "warmup": ".code",
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with loopback_hub() as hub:
        yield make_material(tmp_path_factory.mktemp("material"), hub)


@pytest.fixture(scope="module")
def server(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmServer]:
    with WarmServer(tmp_path_factory.mktemp("streams"), material.environment) as server:
        yield server


def ended(
    server: WarmServer, number: int, moment: tuple[str, str], line: list[str | Path], more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A run of the program that sends itself a signal; `more` is of its environment."""
    return server.run([str(int(number)), *moment, *line], code=HEARD + PROGRAM, environment=more)


def all_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_command_is_in_one_list():
    assert MOMENTS.keys() | AT_ONCE == COMMANDS.keys()
    assert WRITTEN.keys() <= MOMENTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("command", MOMENTS)
def test_a_signal_ends_any_long_run_as_ctrl_c_does(
    material: Material, server: WarmServer, command: str, tmp_path: Path
):
    before = all_files(material.folder)
    cache = {"PYTHIA_GGUF_CACHE": str(tmp_path / "cache")} if command == "warmup" else {}
    out = tmp_path / "out"
    out.mkdir()
    line = [*command.split(), *material.lines(out)[command]]
    done = ended(server, signal.SIGTERM, MOMENTS[command], line, cache)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "Ended by SIGTERM. No file is left half written."
    assert done.stderr.count("Ended") == 1
    assert all_files(out) == set()
    assert all_files(material.folder) == before
    assert not [name for name in all_files(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_the_exit_code_is_128_and_the_signal(material: Material, server: WarmServer, number: int, tmp_path: Path):
    line = ["quantize", *material.lines(tmp_path)["quantize"]]
    done = ended(server, number, MOMENTS["quantize"], line)
    assert (done.returncode, all_files(tmp_path)) == (128 + number, set())


def test_under_nohup_a_terminal_that_closes_ends_nothing(material: Material, tmp_path: Path):
    line = material.lines(tmp_path)["quantize"]
    program = [sys.executable, "-c", PROGRAM, str(int(signal.SIGHUP)), *MOMENTS["quantize"], "quantize"]
    run = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", *program, *map(str, line)]
    done = subprocess.run(run, env=material.environment, capture_output=True, text=True, check=False, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "nano.Q4_0.gguf").is_file()


SECOND = """
import os, signal, sys, threading, time
from pythia_gguf.cli import signals
with signals.EndingSignals() as ending:
    signals._SAME_REASON_S = float(sys.argv[1])
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        print("tidied up", flush=True)
        sys.exit(ending.exit_code)
"""


@pytest.mark.parametrize(("apart_s", "said"), [(-1.0, ""), (1e9, "tidied up\n")])
def test_a_second_signal_ends_at_once_unless_it_comes_with_the_first(apart_s: float, said: str):
    """timeout(1) sends two; who sends another one later does not want to wait."""
    done = subprocess.run([sys.executable, "-c", SECOND, str(apart_s)], capture_output=True, text=True, timeout=HANGS_S)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, said)


def test_the_library_leaves_signals_alone():
    code = (
        "import signal\nbefore = [signal.getsignal(n) for n in (1, 2, 15)]\nimport pythia_gguf\n"
        f"pythia_gguf.quantize({str(NANO)!r}, dry_run=True)\nimport pythia_gguf.cli.main\n"
        "assert before == [signal.getsignal(n) for n in (1, 2, 15)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANGS_S)


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITTEN)
def test_what_a_killed_run_left_is_gone_after_the_next(
    material: Material, server: WarmServer, command: str, tmp_path: Path
):
    """Killed at the moment when a file that is whole would get its name."""
    out = material.folder if command == "card" else tmp_path / "out"
    out.mkdir(exist_ok=True)
    more = {}
    line = [*command.split(), *material.lines(out)[command]]
    if command == "warmup":  # another command compiles fewer kernels, here one
        copy_kernels(out, without="q4_0.encode_q4_0")
        more = {"PYTHIA_GGUF_CACHE": str(out)}
        line = ["quantize", NANO, "--quants", "Q4_0", "--out", tmp_path / "made"]
    before = all_files(out)
    done = ended(server, signal.SIGKILL, ("os.rename", WRITTEN[command]), line, more)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [name for name in all_files(out) - before if name.endswith(".partial")] != []
    again = server.run(line, environment=more)
    assert again.returncode == 0, again.stderr
    assert [name for name in all_files(out) if Path(name).name.startswith(".") and name not in before] == []
    new = all_files(out) - (set() if command == "card" else before)
    assert [name for name in new if name.endswith(WRITTEN[command])] != []


def test_an_export_killed_between_its_files_says_what_to_do(material: Material, server: WarmServer, tmp_path: Path):
    line = ["export", *material.lines(tmp_path)["export"]]
    moment = ("os.rename", "hf/tokenizer.json")
    assert ended(server, signal.SIGKILL, moment, line).returncode == -signal.SIGKILL
    again = server.run(line)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "there is model.safetensors without config.json" in again.stderr
    (tmp_path / "hf" / "model.safetensors").unlink()
    assert server.run(line).returncode == 0
    assert [name for name in all_files(tmp_path) if name.endswith(".partial")] == []


def test_a_partial_file_of_a_living_process_stays(tmp_path: Path):
    code = (
        "import sys\nfrom pythia_gguf.files import write_beside\n"
        "with write_beside(sys.argv[1]) as out:\n    out.write(b'first')\n    print(flush=True)\n    sys.stdin.read()"
    )
    program = [sys.executable, "-c", code, str(tmp_path / "file")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdin is not None
        assert living.stdout is not None
        living.stdout.readline()
        left = tmp_path / f".file.{living.pid}.0123abcd.partial"  # of the same process number, and nobody's
        left.write_bytes(b"left")
        strange = tmp_path / ".file.partial"
        strange.write_bytes(b"not ours")
        from pythia_gguf.files import write_text

        write_text(tmp_path / "other", "text")
        assert not left.exists()
        assert strange.exists()
        assert len(list(tmp_path.glob(f".file.{living.pid}.*.partial"))) == 1
        living.stdin.close()
        assert living.wait(timeout=HANGS_S) == 0
    assert (tmp_path / "file").read_bytes() == b"first"
    assert {p.name for p in tmp_path.iterdir()} == {"file", "other", ".file.partial"}


def test_where_files_cannot_be_locked_a_day_is_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl
    import time

    from pythia_gguf.files import write_text

    def refuse(fd: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    new, old = (tmp_path / f".file.1.{name}.partial" for name in ("0123abcd", "89abcdef"))
    for path in (new, old):
        path.write_bytes(b"left")
    os.utime(old, (0, time.time() - 2 * 86400))
    write_text(tmp_path / "file", "text")
    assert {p.name for p in tmp_path.iterdir()} == {"file", new.name}
