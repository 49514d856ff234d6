"""A job beside the main one gives its result, its progress and its error to the caller, and ends with the block."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from press import tiny
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError
from pythia_gguf.press import quantize as quantize_file
from pythia_gguf.press.source_hashes import hash_source
from pythia_gguf.press.weights import WeightReader
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.side_task import SideTask

# Another thread needs milliseconds for what a test waits for.
PATIENCE_S = 60


class Notes:
    """Progress that is noted, with the thread that tells it."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def stage(self, name: str, total: int, unit: str) -> None:
        self.heard.append((name, total, unit, threading.get_ident()))

    def advance(self, what: str, n: int) -> None:
        self.heard.append((what, n, threading.get_ident()))


def count(progress: Progress) -> int:
    progress.stage("counting", 2, "things")
    for i in range(2):
        progress.advance("thing", 1 + i)
    return threading.get_ident()


@pytest.mark.parametrize("threads", [1, 2])
def test_result_and_progress_come_to_the_caller(threads: int):
    notes, here = Notes(), threading.get_ident()
    with SideTask(count, threads=threads) as task:
        there = task.wait(notes)
        assert (there == here) == (threads == 1)
        assert notes.heard == [("counting", 2, "things", here), ("thing", 1, here), ("thing", 2, here)]
        assert task.wait(notes) == there
        assert len(notes.heard) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_error_comes_to_the_caller(threads: int):
    def fail(progress: Progress) -> None:
        raise ModelFileError("is damaged", path="m.gguf")

    with SideTask(fail, threads=threads) as task, pytest.raises(ModelFileError, match=r"m\.gguf: is damaged"):
        task.wait(Silence())


def test_leaving_the_block_ends_the_job():
    begun, may_go_on, steps = threading.Event(), threading.Event(), []

    def work(progress: Progress) -> None:
        begun.set()
        assert may_go_on.wait(PATIENCE_S)
        for i in range(100):
            steps.append(i)
            progress.advance("step", 1)

    with SideTask(work, threads=2) as task:
        assert begun.wait(PATIENCE_S)
        task._is_over.set()  # what leaving the block does first, here before the job goes on
        may_go_on.set()
    assert steps == [0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.F16.gguf"
    path.write_bytes(tiny.gguf_bytes(width=32))
    return path


def test_a_new_folder_is_pressed_while_the_source_is_hashed(model: Path, monkeypatch: pytest.MonkeyPatch):
    """The hash waits here until a weight is read."""
    is_read, read = threading.Event(), WeightReader.read

    def noted(*args):  # type: ignore[no-untyped-def]
        is_read.set()
        return read(*args)

    def hashed_late(*args):  # type: ignore[no-untyped-def]
        assert is_read.wait(PATIENCE_S)
        return hash_source(*args)

    monkeypatch.setattr(WeightReader, "read", noted)
    monkeypatch.setattr(quantize_file, "hash_source", hashed_late)
    quantize(model, model.parent / "out", quants="Q8_0", threads=2)
    assert hashlib.sha256(model.read_bytes()).hexdigest() in (model.parent / "out" / "manifest.json").read_text()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_source_leaves_nothing(model: Path, threads: int):
    """huggingface_hub names a file in its cache by the file's hash; this file lies there under another file's hash."""
    blob = model.with_name(hashlib.sha256(b"").hexdigest())
    model.rename(blob)
    model.symlink_to(blob)
    with pytest.raises(ModelFileError, match="is damaged: its hash differs"):
        quantize(model, model.parent / "out", quants="Q8_0", threads=threads)
    assert list((model.parent / "out").iterdir()) == []


def test_damage_of_the_source_ends_the_pass_at_once(model: Path, monkeypatch: pytest.MonkeyPatch):
    """The hash has failed before the first weight is read, and so no slab is finished."""
    tasks, finished = [], []

    def damaged(source, progress):  # type: ignore[no-untyped-def]
        raise ModelFileError("is damaged", path=model)

    class Finished(Silence):
        def advance(self, what: str, n: int) -> None:
            finished.append(what)

    class NotedTask(SideTask):
        def __enter__(self):  # type: ignore[no-untyped-def]
            tasks.append(super().__enter__())
            return tasks[-1]

    read = WeightReader.read

    def read_late(*args):  # type: ignore[no-untyped-def]
        assert isinstance(tasks[0]._task.exception(PATIENCE_S), ModelFileError)
        return read(*args)

    monkeypatch.setattr(quantize_file, "hash_source", damaged)
    monkeypatch.setattr(quantize_file, "SideTask", NotedTask)
    monkeypatch.setattr(WeightReader, "read", read_late)
    with pytest.raises(ModelFileError, match="is damaged"):
        quantize(model, model.parent / "out", quants="Q8_0", threads=2, progress=Finished())
    assert finished == []
