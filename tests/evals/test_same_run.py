"""A killed run goes on only as the same run: every option of `imatrix` and `measure` that changes a number, from the
commands' own lists of options, and the files themselves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.test_options import options_of
from engine.nano import HELDOUT, nano_files
from pythia_gguf.engine.model import Model
from pythia_gguf.evals import files as files_module
from pythia_gguf.evals import state as state_module
from pythia_gguf.gguf.imatrix import imatrix_bytes, read_imatrix
from pythia_gguf.gguf.reader import open_gguf

NO_NUMBER = {"--threads": ("1", "2"), "--output-format": ("json", "text"), "--out": (), "--force": ()}
ADDED_AT_THE_END = {"--in-file": ()}
# Option -> two values, with which the same command gives other numbers.
CHANGES = {
    "imatrix": {
        "--text": ("{a}", "{b}"),
        "--context": ("32", "64"),
        "--chunks": ("4", "3"),
        "--gelu": ("erf", "tanh"),
        "--activations": ("int8", "float32"),
        "--kv": ("f16", "f32"),
    },
    "measure": {
        "--text": ("{a}", "{b}"),
        "--reference": ("{f16}", "{q8}"),
        "--context": ("32", "64"),
        "--chunks": ("4", "3"),
        "--gelu": ("erf", "tanh"),
        "--activations": ("int8", "float32"),
    },
}
USUAL = {
    "imatrix": {"--text": "{a}", "--context": "64", "--chunks": "3"},
    "measure": {"--text": "{a}", "--reference": "{f16}", "--context": "64", "--chunks": "3"},
}
CASES = [(command, option) for command, options in CHANGES.items() for option in options]


def test_every_option_is_tried_or_changes_no_number():
    for command, options in CHANGES.items():
        known = {max(option.opts, key=len) for option in options_of(command)}
        assert known == {*options, *NO_NUMBER, *(ADDED_AT_THE_END if command == "imatrix" else ())}


class Runs:
    """Runs of one command on one file, of which the first may be killed in the middle."""

    def __init__(self, pythia: Any, command: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.pythia, self.command, self.folder = pythia, command, folder
        self.model = folder / "model.gguf"
        shutil.copy(nano_files()["Q4_0"], self.model)
        text = HELDOUT.read_text("utf-8")
        (folder / "a.txt").write_text(text[:3000], "utf-8")
        (folder / "b.txt").write_text(text[3000:6000], "utf-8")
        self.names = {"a": folder / "a.txt", "b": folder / "b.txt", "f16": nano_files()["F16"]}
        self.names["q8"] = nano_files()["Q8_0"]
        self.n_windows, self.most = 0, 10**9
        patch.setattr(state_module, "_SAVED_EVERY_S", 0.0)
        for owner, method in ((Model, "watch"), (files_module.Windows, "logits")):
            patch.setattr(owner, method, self.counted(getattr(owner, method)))

    def counted(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.n_windows == self.most:
                raise KeyboardInterrupt
            self.n_windows += 1
            return run(*args, **options)

        return call

    def kill(self, out: Path, options: dict[str, str]) -> None:
        """Let a run have its first window done, and die in the second or before the third."""
        assert self.run(out, options, most=2 if self.command == "imatrix" else 3) is None

    def run(self, out: Path, options: dict[str, str], most: int = 10**9) -> Any:
        """The numbers; None where it was killed after so many windows, those of the reference too."""
        self.n_windows, self.most = 0, most
        words = [word for pair in (USUAL[self.command] | options).items() for word in pair]
        given = [word.format_map(self.names) for word in words]
        code, _, err = self.pythia(self.command, self.model, *given, "-o", out)
        assert code == (0 if most == 10**9 else 130), err
        if code:
            return None
        if self.command == "imatrix":
            return imatrix_bytes(read_imatrix(out))
        report = json.loads(out.read_text("utf-8"))
        rows = [{k: v for k, v in row.items() if "per_s" not in k} for row in report["files"]]
        return report | {"files": rows}


@pytest.mark.parametrize(("command", "option"), CASES)
def test_a_run_with_another_value_does_not_go_on(pythia, tmp_path: Path, monkeypatch, command: str, option: str):
    runs = Runs(pythia, command, tmp_path, monkeypatch)
    first, second = ({option: value} for value in CHANGES[command][option])
    runs.kill(tmp_path / "killed", first)
    went_on = runs.run(tmp_path / "killed", second)
    n_windows = runs.n_windows
    assert went_on == runs.run(tmp_path / "fresh", second)
    assert n_windows == runs.n_windows
    assert went_on != runs.run(tmp_path / "other", first)


@pytest.mark.parametrize("command", CHANGES)
def test_the_same_run_goes_on_whatever_changes_no_number(pythia, tmp_path: Path, monkeypatch, command: str):
    runs = Runs(pythia, command, tmp_path, monkeypatch)
    first, second = ({option: pair[i] for option, pair in NO_NUMBER.items() if pair} for i in (0, 1))
    runs.kill(tmp_path / "killed", first)
    went_on = runs.run(tmp_path / "killed", second)
    n_windows = runs.n_windows
    assert went_on == runs.run(tmp_path / "fresh", second)
    assert 0 < n_windows < runs.n_windows


@pytest.mark.parametrize("command", CHANGES)
def test_other_bytes_under_the_same_name_size_and_time_are_another_run(
    pythia, tmp_path: Path, monkeypatch, command: str
):
    runs = Runs(pythia, command, tmp_path, monkeypatch)
    runs.kill(tmp_path / "killed", {})
    status = runs.model.stat()
    data, gguf = bytearray(runs.model.read_bytes()), open_gguf(runs.model)
    at = gguf.data_offset + gguf.tensors["blk.0.attn_qkv.weight"].offset + 2
    data[at : at + 16] = data[at + 18 : at + 34]  # levels of one block in another's place
    with open(runs.model, "r+b") as file:
        file.write(data)
    os.utime(runs.model, ns=(status.st_atime_ns, status.st_mtime_ns))
    went_on = runs.run(tmp_path / "killed", {})
    assert went_on == runs.run(tmp_path / "fresh", {})
