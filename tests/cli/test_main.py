"""The `pythia` command as a person meets it: output, exit codes, one line for every error."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from patience import HANGS_S
from pythia_gguf.cli.main import COMMANDS

NANO = "examples/nano"


def test_quantize_prints_the_table_and_where_it_is(pythia, tmp_path: Path):
    code, out, err = pythia("quantize", NANO, "--out", tmp_path / "out", "--quants", "Q4_K_M,Q4_K,Q8_0")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["name", "size", "bytes", "bits/w", "formats"]
    assert lines[2].split()[:4] == ["nano.Q4_K_M.gguf", "<0.01GB", "4,555,232", "5.18"]  # llama-quantize: 5.18 BPW
    assert "same file as Q4_K_M" in lines[1]
    assert lines[-1].startswith("3 files, 12,011,456 bytes on disk, in ")
    assert "Traceback" not in err


def test_json_is_one_object_and_agrees_with_the_disk(pythia, tmp_path: Path):
    code, out, _ = pythia("quantize", NANO, "--out", tmp_path / "out", "--output-format", "json", "--quiet")
    result = json.loads(out)
    assert code == 0
    assert result["schema_version"] == 1
    assert [f["quant"] for f in result["files"]][:4] == ["Q2_K", "Q3_K_S", "Q3_K", "Q3_K_M"]
    assert len(result["files"]) == 19
    for f in result["files"]:
        assert (tmp_path / "out" / f["file"]).stat().st_size == f["bytes"]
        assert len(f["sha256"]) == 64
    dry = json.loads(pythia("quantize", NANO, "--dry-run", "--output-format", "json")[1])
    assert [f["bytes"] for f in dry["files"]] == [f["bytes"] for f in result["files"]]


def test_quiet_says_nothing(pythia, tmp_path: Path):
    assert pythia("quantize", NANO, "--out", tmp_path / "out", "--quants", "Q8_0", "--quiet") == (0, "", "")


def test_quants_shows_the_menu(pythia):
    code, out, _ = pythia("quants")
    assert code == 0
    assert len(out.splitlines()) == 20
    assert out.splitlines()[3].split() == ["Q3_K", "12", "Q3_K", "same", "file", "as", "Q3_K_M"]


def test_quants_of_a_model_gives_reasons(pythia):
    code, out, _ = pythia("quants", NANO, "--quants", "Q4_K_M", "--tensors")
    assert code == 0
    assert "output.weight" in out
    assert "output matrix keeps more bits" in out
    assert json.loads(pythia("quants", NANO, "--tensors", "--output-format", "json")[1])["plans"]["Q2_K"][
        "blk.0.ffn_up.weight"
    ] == {"format": "Q2_K", "reason": "base format of Q2_K"}


def test_verify_says_ok_or_names_the_fault(pythia, tmp_path: Path):
    pythia("quantize", NANO, "--out", tmp_path, "--quants", "Q4_0,Q8_0", "--quiet")
    code, out, _ = pythia("verify", tmp_path)
    assert (code, out) == (0, "ok       nano.Q4_0.gguf  every byte\nok       nano.Q8_0.gguf  every byte\n")
    with open(tmp_path / "nano.Q8_0.gguf", "r+b") as f:
        f.seek(-64, 2)
        byte = f.read(1)
        f.seek(-64, 2)
        f.write(bytes([byte[0] ^ 16]))
    code, out, err = pythia("verify", tmp_path)
    assert code == 65
    assert "damaged  nano.Q8_0.gguf" in out
    assert "tensor blk.5.ffn_up.weight" in err
    assert json.loads(pythia("verify", tmp_path, "--output-format", "json")[1])["ok"] is False


WRONG = [
    (["quantise", NANO], 2, "no such command 'quantise'. Did you mean quantize"),
    (["quantize"], 2, "Missing argument 'SOURCE'"),
    (["quantize", NANO, "--quants", "Q4_K_X"], 2, "unknown quant 'Q4_K_X'. Did you mean Q4_K_S"),
    (["quantize", NANO, "--mix", "2025"], 2, "unknown mix '2025'"),
    (["quantize", NANO, "--threads", "0"], 2, "--threads must be at least 1, got 0"),
    (["quantize", NANO, "--threads", "two"], 2, "is not a valid integer"),
    (["quantize", NANO, "--fast"], 2, "No such option"),
    (["quantize", "no/such/folder"], 74, "no such file or folder"),
    (["quantize", "Makefile"], 2, "expected a Hugging Face folder or a .gguf file"),
    (["quantize", "tests"], 74, "config.json"),
    (["quantize", NANO, "--name", "a/b"], 2, "cannot name files 'a/b'"),
    (["quantize", NANO, "--out", "Makefile", "--quants", "Q8_0"], 74, "Makefile: is a file"),
    (["inspect", "examples/nano/config.json"], 65, "is one file of a model"),
    (["inspect", "none.gguf"], 74, "cannot open"),
    (["verify", "none"], 74, "no such file or folder"),
    (["verify", "docs"], 74, "no manifest.json, no SHA256SUMS and no .gguf file"),
    (["quants", "--tensors"], 2, "--tensors changes nothing without SOURCE"),
]


@pytest.mark.parametrize(("args", "code", "message"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_wrong_input_is_one_clear_line(pythia, args, code, message):
    got, out, err = pythia(*args)
    assert got == code
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()[-1]) < 400


def test_every_command_has_help_with_an_example(pythia):
    for name in COMMANDS:
        code, out, _ = pythia(*name.split(), "--help")
        assert code == 0
        assert f"pythia {name}" in out.split("Options:")[0].replace("Usage:", "", 1), name


def test_both_scripts_and_the_module_are_the_same_program():
    scripts = Path(sys.executable).parent
    for command in ([scripts / "pythia"], [scripts / "pythia-gguf"], [sys.executable, "-m", "pythia_gguf"]):
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        assert shown == "pythia-gguf, version 0.1.0\n"


def test_interrupt_leaves_nothing_half_written(tmp_path: Path):
    """Ctrl-C right after the first output appears: exit code 130, one line, no partial file, no final name."""
    import signal

    out = tmp_path / "out"
    command = [sys.executable, "-m", "pythia_gguf", "quantize", NANO, "--out", str(out), "--threads", "1"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    while run.poll() is None and not (out.exists() and any(out.iterdir())):
        pass
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=HANGS_S)
    if run.returncode == 0:  # it was faster than we are: then all is there
        assert len(list(out.glob("*.gguf"))) == 19
    else:
        assert (run.returncode, err.strip().splitlines()[-1].split(".")[0]) == (130, "Interrupted")
        assert not list(out.glob("*"))
        assert not list(out.glob(".*"))


def on_a_terminal(columns: int, *args: str) -> str:
    """What `pythia` shows on a terminal of that width."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    run = subprocess.Popen([sys.executable, "-m", "pythia_gguf", *args], stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = b""
    while part := read_terminal(master):
        shown += part
    os.close(master)
    assert run.wait(timeout=HANGS_S) == 0
    return shown.decode()


def read_terminal(master: int) -> bytes:
    """What has come; nothing when the other side is closed, which Linux says as an error."""
    try:
        return os.read(master, 65536)
    except OSError as e:
        if e.errno != errno.EIO:
            raise
    return b""


@pytest.mark.parametrize("columns", [60, 80] if os.name == "posix" else [])
def test_names_are_whole_on_a_narrow_terminal(columns: int):
    name = "a-rather-long-name-of-a-model-v0"
    shown = on_a_terminal(columns, "quantize", NANO, "--dry-run", "--name", name)
    assert all(f"{name}.{quant}.gguf" in shown for quant in ("Q2_K", "Q3_K_M", "IQ4_XS", "Q8_0"))


def test_output_that_nobody_can_take_is_no_traceback():
    program = [sys.executable, "-m", "pythia_gguf", "quants"]
    many = [*program, NANO, "--tensors", "--output-format", "json"]
    with subprocess.Popen(many, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as closed:
        assert closed.stdout is not None
        assert closed.stderr is not None
        closed.stdout.close()
        # click's code for a reader that has gone
        assert (closed.stderr.read(), closed.wait(timeout=HANGS_S)) == ("", 1)
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (74, 1)
        assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pythia me", {"measure"}),
        ("pythia quantize --q", {"--quants", "--quantized-by", "--quiet"}),
        ("pythia nonsense --q", set()),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_of_commands_and_options_complete_as_the_page_says(words: str, completed: set[str], shell: str):
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text("utf-8")
    assert f"{shell}_source" in page
    asked = {"COMP_WORDS": words, "COMP_CWORD": words.split()[-1] if shell == "fish" else str(len(words.split()) - 1)}
    program = str(Path(sys.executable).parent / "pythia")
    done = subprocess.run(
        [program], env=os.environ | asked | {"_PYTHIA_COMPLETE": f"{shell}_complete"}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert set(re.findall(r"(?:^|[\s,])((?:--)?[a-z][\w-]*)(?=$|\s)", done.stdout, re.M)) >= completed
    assert bool(done.stdout.strip()) is bool(completed)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        ("MemoryError('9 GB')", 71, "Error: not enough memory: 9 GB"),
        ("RecursionError", 65, "Error: something here is nested too deeply"),
        ("'\\udcff'.encode()", 65, "Error: a text that is not Unicode: "),
        ("KeyboardInterrupt", 130, "Interrupted. No file is left half written."),
        ("ZeroDivisionError", 1, "This is a fault of pythia-gguf "),
    ],
)
def test_what_no_command_expects_is_one_line_and_a_fault_of_ours_says_so(raised: str, code: int, said: str):
    """The menu of quants is computed when it is shown; here that goes wrong."""
    program = (
        "import sys\nfrom pythia_gguf.plan import quants\nfrom pythia_gguf.cli.main import main\n"
        f"def wrong(mix):\n    raise {raised}\n"
        "quants.find_mix = wrong\nsys.argv = ['pythia', 'quants']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith(said)
    assert ("Traceback" in done.stderr) is (code == 1)
