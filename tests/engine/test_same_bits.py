"""The logits of a sequence are the same bits whatever is computed with them: threads, slices, company, forks.

F16 and F32 weights keep one order of float operations too, so they are held to the same.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from engine.nano import HELDOUT, is_refused, nano_files
from pythia_gguf.choices import ACTIVATIONS
from pythia_gguf.engine.model import Model, load
from pythia_gguf.engine.points import HookPlace, matrix_at, point_names
from pythia_gguf.engine.protocol import Part
from pythia_gguf.engine.windows import Windows
from pythia_gguf.errors import UsageError
from pythia_gguf.gguf.reader import decode_tensor

# One file of each kind of kernel: one scale, offset, minimum, two scales with and without one, levels, plain.
QUANTS = ("Q8_0", "Q4_1", "Q5_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS", "F16")


@cache
def model(quant: str, threads: int = 2, activations: str = "int8") -> Model:
    return load(nano_files()[quant], threads=threads, activations=activations)


def text(quant: str, n: int = 150) -> list[int]:
    return model(quant).tokenizer.encode(HELDOUT.read_text("utf-8")[:2000])[:n]


def in_slices(m: Model, ids: list[int], sizes: list[int]) -> np.ndarray:
    """Logits of all ids, given in slices of these sizes in turn."""
    session, rows, at = m.sequences(n_context=len(ids)), [], 0
    seq = session.open()
    while at < len(ids):
        part = ids[at : at + sizes[len(rows) % len(sizes)]]
        rows.append(session.step([Part(seq=seq, ids=part, n_wanted=len(part))]))
        at += len(part)
    return np.concatenate(rows)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("quant", QUANTS)
def test_threads_and_slices_change_no_bit(quant: str, activations: str):
    if is_refused(nano_files()[quant], activations):
        return
    ids = text(quant)
    whole = model(quant, 2, activations).logits(ids)
    assert np.array_equal(whole, model(quant, 1, activations).logits(ids))
    for sizes in ([1], [2, 3], [5, 1, 17], [64]):
        assert np.array_equal(in_slices(model(quant, 2, activations), ids, sizes), whole), sizes


def test_more_threads_than_processors_change_no_bit():
    ids = text("Q4_K_M", 40)
    assert np.array_equal(load(nano_files()["Q4_K_M"], threads=7).logits(ids), model("Q4_K_M").logits(ids))


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "F16"])
def test_company_changes_no_bit(quant: str):
    """Sequences of different length join and leave while others go on."""
    m = model(quant)
    ids = text(quant)
    texts = [ids[:90], ids[20:45], ids[50:120], ids[5:70], ids[100:101]]
    alone = [m.logits(t) for t in texts]
    session = m.sequences(n_sequences=3, n_context=100)
    waiting, running, found = list(range(len(texts))), {}, [[] for _ in texts]
    step = 0
    while waiting or running:
        while waiting and len(running) < 3:
            running[session.open()] = (waiting.pop(0), 0)
        parts, n_next = [], 1 + step % 7
        for seq, (which, at) in running.items():
            part = texts[which][at : at + n_next]
            parts.append(Part(seq=seq, ids=part, n_wanted=len(part)))
        rows = session.step(parts)
        for part in parts:
            which, at = running[part.seq]
            found[which].append(rows[: part.n_wanted])
            rows = rows[part.n_wanted :]
            running[part.seq] = (which, at + len(part.ids))
            if at + len(part.ids) == len(texts[which]):
                session.close(part.seq)
                del running[part.seq]
        step += 1
    for rows_of, expected in zip(found, alone, strict=True):
        assert np.array_equal(np.concatenate(rows_of), expected)


@pytest.mark.parametrize("cut", [1, 31, 32, 33, 64])
def test_fork_and_truncate_change_no_bit(cut: int):
    m, ids = model("Q4_K_M"), text("Q4_K_M", 80)
    whole = m.logits(ids)
    session = m.sequences(n_sequences=2, n_context=80)
    seq = session.open()
    session.step([Part(seq=seq, ids=ids, n_wanted=0)])
    fork = session.fork(seq, cut)
    assert np.array_equal(session.step([Part(seq=fork, ids=ids[cut:], n_wanted=80 - cut)]), whole[cut:])
    session.truncate(seq, cut)
    assert np.array_equal(session.step([Part(seq=seq, ids=ids[cut:], n_wanted=80 - cut)]), whole[cut:])


def test_stretches_of_the_op_list_are_one_whole():
    """What looks inside stops between ops; nothing changes for it."""
    m, ids = model("Q4_K_M"), text("Q4_K_M", 20)
    whole = m.logits(ids)
    run = m.runner.workers.run

    def one_by_one(ops: np.ndarray, first: int, last: int, step: np.ndarray, held: object) -> None:
        for i in range(first, last):
            run(ops, i, i + 1, step, held)

    m.runner.workers.run = one_by_one  # type: ignore[method-assign]
    try:
        assert np.array_equal(m.logits(ids), whole)
    finally:
        m.runner.workers.run = run  # type: ignore[method-assign]


def test_what_does_not_fit_is_refused_before_anything_happens():
    m = model("Q4_K_M")
    session = m.sequences(n_sequences=1, n_context=8)
    seq = session.open()
    session.step([Part(seq=seq, ids=[1, 2, 3])])
    for bad, message in (
        (Part(seq=seq, ids=[1] * 6), "9 tokens do not fit into a context of 8"),
        (Part(seq=seq, ids=[]), "at least one token"),
        (Part(seq=seq, ids=[m.n_vocab]), r"ids must be in 0\.\.4095"),
        (Part(seq=seq, ids=[-1]), r"ids must be in 0\.\.4095"),
        (Part(seq=1, ids=[1]), "no sequence 1"),
        (Part(seq=seq, ids=[1], n_wanted=2), "logits wanted after 2 of 1 tokens"),
    ):
        with pytest.raises((ValueError, UsageError), match=message):
            session.step([bad])
        assert session.length(seq) == 3
    with pytest.raises(ValueError, match="same sequence"):
        session.step([Part(seq=seq, ids=[1]), Part(seq=seq, ids=[1])])
    with pytest.raises(UsageError, match="all 1 sequences are in use"):
        session.open()


@pytest.mark.parametrize("quant", ["F16", "Q4_K_M"])
def test_who_looks_inside_changes_nothing(quant: str):
    """Stopping before every product, and what is seen there: products of it are what the model goes on with."""
    ids = text(quant)
    seen: dict[str, list[np.ndarray]] = {}
    session = model(quant).sequences()

    def see(x: np.ndarray, place: HookPlace) -> None:
        seen.setdefault(str(matrix_at(place.name)), []).append(x.copy())

    hooks = {point: see for point in point_names(model(quant).config) if matrix_at(point)}
    logits = session.step([Part(seq=session.open(), ids=ids, n_wanted=3)], hooks=hooks)
    assert np.array_equal(logits, model(quant).logits(ids, 3))
    assert set(seen) == {name for name, info in model(quant).gguf.tensors.items() if len(info.shape) == 2} - {
        "token_embd.weight"
    }
    assert {sum(len(x) for x in parts) for name, parts in seen.items() if name != "output.weight"} == {len(ids)}
    hidden = np.concatenate(seen["output.weight"])
    assert hidden.shape == (3, 256)
    matrix = decode_tensor(model(quant).gguf, "output.weight")
    # What is seen is float32; int8 activations of Q4_K_M cost up to half a percent of the largest logit.
    close = 1e-4 if quant == "F16" else 0.01
    np.testing.assert_allclose(hidden @ matrix.T, logits, atol=close * np.abs(logits).max())


def test_windows_forget_what_was_before():
    """The same memory for one text after another, longer and shorter, and logits of some tokens or of all."""
    ids = text("Q4_K_M", 96)
    windows = Windows(model("Q4_K_M"), 64)
    for part, n_last in ((ids[:64], 32), (ids[10:30], None), (ids[32:96], 1), (ids[:64], None)):
        assert np.array_equal(windows.logits(part, n_last), model("Q4_K_M").logits(part, n_last))
    assert (windows.n_context, Windows(model("Q4_K_M"), 9999).n_context) == (64, 512)
    with pytest.raises(UsageError, match="65 tokens do not fit into a context of 64"):
        windows.logits(ids[:65])


def test_room_that_is_too_small_or_of_another_kind_is_refused():
    session = model("Q4_K_M").sequences()
    part = Part(seq=session.open(), ids=[1, 2, 3], n_wanted=2)
    room = session.room_for(2)
    room.fill(0.0)  # what lies in fresh memory may be a signalling NaN, and to cast one is a warning
    for wrong in (room[:1], room[:, :-1], room.astype(np.float64), np.asfortranarray(room)):
        with pytest.raises(ValueError, match="no room for 2 rows"):
            session.step([part], wrong)
    assert session.length(part.seq) == 0
