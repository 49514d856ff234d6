"""The commands of README.md print what stands below them, and the scripts in examples/ run; all in one folder."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from pythia_gguf.evals.plots import is_drawn_from
from pythia_gguf.files import sha256_of

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample model, in which the first who needs them makes its files."""
    path = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES / "nano", path / "examples" / "nano")
    return path


@pytest.fixture(autouse=True)
def working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_commands_of_the_readme_print_what_stands_below_them(pythia):
    """One after the other; "..." stands for any text."""
    blocks = re.findall(r"^```console run\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    commands = [c for block in blocks for c in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    assert len(commands) >= 4
    for command in commands:
        line, _, expected = command.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == "pythia"
        code, out, err = pythia(*arguments)
        assert code == 0, err
        printed = "".join(f"{text.rstrip()}\n" for text in out.splitlines())
        assert doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS), printed


def run(script: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a script prints, in lines."""
    runpy.run_path(str(EXAMPLES / script))["main"]("examples/nano", "nano-GGUF", *arguments)
    return capsys.readouterr().out.splitlines()


def test_quantize_and_verify(capsys: pytest.CaptureFixture[str]):
    assert run("quantize_and_verify.py", capsys=capsys)[-1] == "20 files checked, 0 of them damaged"


def test_score_with_every_quant(capsys: pytest.CaptureFixture[str]):
    rows = [line.split() for line in run("score_with_every_quant.py", capsys=capsys)[2:]]
    assert len(rows) == 17
    for _, sys_end, os_end, banana in rows:
        assert max(float(banana), -20) < min(float(sys_end), float(os_end)) < 0  # a model of Python code


def test_measure_and_draw(folder: Path, capsys: pytest.CaptureFixture[str]):
    text = folder / "short.txt"
    text.write_text((EXAMPLES / "nano" / "heldout.txt").read_text("utf-8")[:3000], "utf-8")
    lines = run("measure_and_draw.py", str(text), capsys=capsys)
    pictures = [Path(line) for line in lines if line.endswith(".png")]
    assert len(pictures) == 2
    assert all(is_drawn_from(picture, sha256_of("nano-GGUF/quick-report.json")) for picture in pictures)


def test_every_script_is_tried_here():
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} <= globals().keys()
