"""--threads 1 is one thread, in every command that has the option: none is started beside it, and no process.

Every start of a thread or a process is noted; Linux says how many threads there are, those that libraries start by
themselves included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command_lines import make_corpus, make_run, write_task
from engine.nano import HELDOUT, NANO, nano_files
from patience import HANGS_S
from pythia_gguf.cli.main import COMMANDS, find_command

PROGRAM = """
import json, os, sys, threading
n_threads, lines = sys.argv[1], json.loads(sys.argv[2])
started, result = [], {}
start = threading.Thread.start
def start_and_note(thread):
    started.append(thread.name)
    start(thread)
threading.Thread.start = start_and_note
sys.addaudithook(lambda event, args: event == "subprocess.Popen" and started.append(str(args[1])))
from pythia_gguf.cli.main import main
for name, arguments in lines.items():
    sys.argv = ["pythia", *name.split(), *arguments, "--threads", n_threads]
    started.clear()
    try:
        main()
    except SystemExit as e:
        n_alive = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
        result[name] = [e.code, list(started), n_alive]
print(json.dumps(result), file=sys.__stderr__)
"""

OURS = ("compare", "compile", "encode", "load", "pythia", "write")


def lines(tmp_path: Path) -> dict[str, list[str]]:
    """Command -> its arguments."""
    q4, f16 = (str(nano_files()[quant]) for quant in ("Q4_0", "F16"))
    tasks = tmp_path / "tasks"
    write_task(tasks)
    text = ["--text", str(HELDOUT), "--context", "32", "--chunks", "1"]
    tokenizer = str(NANO / "tokenizer.json")
    effect = [str(make_corpus(tmp_path / "corpus")), " import os", "--batch", "2", "--tokenizer", tokenizer]
    return {
        "quantize": [str(NANO), "--out", str(tmp_path / "made"), "--quants", "Q4_0,Q8_0"],
        "verify": [q4, "--against", str(NANO)],
        "generate": [q4, "def", "--max-tokens", "4"],
        "score": [q4, "--prompt", "import", "--continuation", " os"],
        "serve": [q4, "--port", "0", "--check"],
        "bench": [q4, "--prompt", "8", "--tokens", "2", "--repeats", "1"],
        "imatrix": [f16, *text, "-o", str(tmp_path / "imatrix.gguf")],
        "measure": [q4, "--reference", f16, *text],
        "data effect": [*effect, "--model", str(make_run(tmp_path / "run", nano_files()["Q4_0"]))],
        "eval": [q4, "--tasks", "two_words", "--include-path", str(tasks)],
    }


def test_every_command_with_threads_is_tried(tmp_path: Path):
    having = {n for n in COMMANDS for p in find_command(n).params if p.name == "threads"}
    having -= {"train", "replay"}  # torch's threads are none of Python's
    assert having == lines(tmp_path).keys()


def run(n_threads: int, tmp_path: Path) -> dict[str, tuple[int, list[str], int]]:
    """Command -> exit code, threads and processes that it started, threads that are there at its end."""
    given = json.dumps(lines(tmp_path))
    command = [sys.executable, "-c", PROGRAM, str(n_threads), given]
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=HANGS_S)
    told: dict[str, tuple[int, list[str], int]] = json.loads(done.stderr.splitlines()[-1])
    assert {name: code for name, (code, _, _) in told.items()} == dict.fromkeys(told, 0), done.stderr
    return told


def test_one_thread_is_one(tmp_path: Path):
    for name, (_, started, n_alive) in run(1, tmp_path).items():
        if name == "eval":  # the harness watches its bars, reads data sets and asks the machine what it is
            assert not [each for each in started if each.startswith(OURS)]
        else:
            # Whoever says after two seconds that something is going on does no work.
            assert set(started) <= {"progress"} and n_alive <= 1 + len(started), name


@pytest.mark.slow
def test_more_are_more(tmp_path: Path):
    """So the test above sees what it looks for."""
    for name, (_, started, _) in run(3, tmp_path).items():
        assert len([each for each in started if each.startswith(OURS)]) > 2, name
