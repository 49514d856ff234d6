"""Takers of the pass wait for slabs and for nothing else; memory, order and errors do not depend on the threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from press import tiny
from press.menus import toy_source
from pythia_gguf.errors import ModelFileError, StorageError
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.press import pipeline, slabs
from pythia_gguf.press.encoded import encode_model, open_to_encode
from pythia_gguf.press.pipeline import Taker, Watch
from pythia_gguf.press.pressing import encode_into
from pythia_gguf.press.slabs import Slab
from pythia_gguf.press.source import Source
from pythia_gguf.progress import Silence

# A taker that waits for another one waits so long at most; the other needs milliseconds.
PATIENCE_S = 60
FORMATS_WANTED = ("Q8_0", "Q4_0")


@cache
def source() -> Source:
    return open_to_encode(toy_source(), name=None, imatrix=None, progress=Silence())


@pytest.fixture(autouse=True)
def many_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 1 << 14)


def run(
    *takers: Taker,
    threads: int = 2,
    advance: Callable[[str, int], None] = lambda name, n: None,
    watch: Watch | None = None,
    of: Source | None = None,
) -> None:
    of = of or source()
    wanted = {tensor.name: FORMATS_WANTED if len(tensor.shape) == 2 else ("F32",) for tensor in of.tensors}
    encode_into(takers, of, wanted, threads=threads, advance=advance, watch=watch)


class Notes:
    """A taker that notes what it gets, and that nobody else calls it meanwhile."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self._one_at_a_time = threading.Lock()

    def take(self, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        assert self._one_at_a_time.acquire(blocking=False)
        assert {name: len(data) for name, data in encoded.items()} == {
            name: FORMATS[name].row_bytes(slab.n_weights) for name in slab.formats
        }
        self.taken.append((slab.tensor.name, slab.start))
        self.threads.add(threading.get_ident())
        self._one_at_a_time.release()


@cache
def alone() -> list[tuple[str, int]]:
    """All slabs in order, as one thread gives them."""
    notes = Notes()
    run(notes.take, threads=1)
    return notes.taken


def test_one_thread_is_the_callers_own():
    notes, watched, before = Notes(), [], threading.active_count()

    def watch(slab: Slab, taker: Taker | None) -> threading.Lock:
        watched.append((threading.get_ident(), taker))
        assert threading.active_count() == before
        return threading.Lock()

    run(notes.take, threads=1, watch=watch)
    assert len(notes.taken) == len(set(notes.taken)) > 60
    assert notes.threads == {threading.get_ident()}
    # One slab after the other: encoded, then taken.
    assert watched == [(threading.get_ident(), taker) for _ in notes.taken for taker in (None, notes.take)]


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_every_taker_gets_every_slab_in_order(threads: int):
    notes = [Notes() for _ in range(5)]
    run(*(n.take for n in notes), threads=threads)
    assert [n.taken for n in notes] == [alone()] * 5


def test_order_is_kept_when_a_later_slab_is_encoded_first(monkeypatch: pytest.MonkeyPatch):
    notes, second_is_there = Notes(), threading.Event()
    encode_slab = pipeline.encode_slab

    def encode_first_one_last(reader, slab, buffers):  # type: ignore[no-untyped-def]
        place = alone().index((slab.tensor.name, slab.start))
        if place == 0:
            assert second_is_there.wait(PATIENCE_S)
        encoded = encode_slab(reader, slab, buffers)
        if place == 1:
            second_is_there.set()
        return encoded

    monkeypatch.setattr(pipeline, "encode_slab", encode_first_one_last)
    run(notes.take)
    assert notes.taken == alone()


@pytest.mark.parametrize("threads", [2, 3])
def test_a_taker_that_waits_holds_up_no_other(threads: int):
    """It waits with its first slab until the other one has taken as many slabs as can have buffers."""
    notes, enough, in_flight = Notes(), threading.Event(), pipeline.slabs_on_their_way(threads)

    def slow(slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        assert enough.wait(PATIENCE_S)

    def quick(slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        notes.take(slab, encoded)
        if len(notes.taken) == in_flight:
            enough.set()

    run(slow, quick, threads=threads)
    assert notes.taken == alone()


def test_memory_is_bounded_however_slow_a_taker_is(monkeypatch: pytest.MonkeyPatch):
    """While it waits, no more slabs get buffers than may be on their way; then they use the same ones again."""
    made: list[object] = []
    n_encoded = iter(range(1000))
    stalled, in_flight = threading.Event(), pipeline.slabs_on_their_way(2)
    buffers, encode_slab = pipeline.Buffers, pipeline.encode_slab

    def noted() -> slabs.Buffers:
        made.append(buffers())
        return made[-1]

    def counted(reader, slab, its_buffers):  # type: ignore[no-untyped-def]
        assert its_buffers in made
        encoded = encode_slab(reader, slab, its_buffers)
        if next(n_encoded) == in_flight - 1:
            stalled.set()
        return encoded

    def slow(slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        assert stalled.wait(PATIENCE_S)

    monkeypatch.setattr(pipeline, "Buffers", noted)
    monkeypatch.setattr(pipeline, "encode_slab", counted)
    run(slow, threads=2)
    assert len(made) == in_flight
    assert next(n_encoded) == len(alone())
    made.clear()
    run(lambda slab, encoded: None, threads=1)
    assert len(made) == 1


def damaged(folder: Path, *names: str) -> Source:
    """The toy with a NaN at the front of some tensors."""
    path = folder / "damaged.gguf"
    path.write_bytes(toy_source().read_bytes())
    gguf = open_gguf(path)
    with open(path, "r+b") as f:
        for name in names:
            f.seek(gguf.data_offset + gguf.tensors[name].offset)
            f.write(np.float16(np.nan).tobytes())
    return open_to_encode(path, name=None, imatrix=None, progress=Silence())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_of_two_bad_slabs_the_first_is_named(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch):
    """Also when the second one is found first: with threads the first one waits for it."""
    first, second = "blk.0.attn_output.weight", "blk.0.attn_qkv.weight"
    bad = damaged(tmp_path, first, second)
    second_failed = threading.Event()
    encode_slab = pipeline.encode_slab

    def encode_first_one_last(reader, slab, buffers):  # type: ignore[no-untyped-def]
        if slab.tensor.name == second:
            second_failed.set()
        elif slab.tensor.name == first and threads > 1:
            assert second_failed.wait(PATIENCE_S)
        return encode_slab(reader, slab, buffers)

    monkeypatch.setattr(pipeline, "encode_slab", encode_first_one_last)
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 1 << 19)  # each tensor is one slab
    with pytest.raises(ModelFileError, match=f"tensor {first}: value nan at"):
        run(Notes().take, threads=threads, of=bad)
    assert threads == 1 or second_failed.is_set()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_error_of_a_taker_ends_the_pass(threads: int):
    notes, failed = Notes(), []

    def full(slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        if (slab.tensor.name, slab.start) == alone()[3]:
            failed.append(slab)
            raise StorageError("out/m.gguf: cannot write: No space left on device")

    before = threading.active_count()
    with pytest.raises(StorageError, match="No space left"):
        run(notes.take, full, threads=threads)
    assert threading.active_count() == before
    # No taker gets what no buffers are there for, and the failing one is not called again.
    assert notes.taken == alone()[: len(notes.taken)] and len(notes.taken) <= 3 + pipeline.slabs_on_their_way(threads)
    assert len(failed) == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_interrupt_in_the_callers_thread_ends_the_pass(threads: int):
    """As Ctrl-C does, and a progress bar that cannot write any more."""
    notes, before = Notes(), threading.active_count()

    def advance(name: str, n_weights: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(notes.take, threads=threads, advance=advance)
    assert threading.active_count() == before
    assert len(notes.taken) < len(alone())


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_told_in_the_callers_thread_once_all_have_taken(threads: int):
    heard: list[tuple[str, int, int]] = []
    notes = [Notes(), Notes()]

    def advance(name: str, n_weights: int) -> None:
        heard.append((name, n_weights, threading.get_ident()))
        assert min(len(n.taken) for n in notes) >= len(heard)

    run(*(n.take for n in notes), threads=threads, advance=advance)
    assert [name for name, _, _ in heard] == [name for name, _ in alone()]
    assert sum(n for _, n, _ in heard) == source().n_weights
    assert {thread for _, _, thread in heard} == {threading.get_ident()}


def test_a_model_smaller_than_a_slab_is_pressed_by_many_threads(tmp_path: Path):
    path = tmp_path / "m.F16.gguf"
    path.write_bytes(tiny.gguf_bytes(width=32))
    one, many = (encode_model(path, "Q4_0,Q8_0", threads=threads) for threads in (1, 64))
    for quant, gguf in one.items():
        assert b"".join(gguf.pieces()) == b"".join(many[quant].pieces())
