"""What lies at every point is what transformers has there, changed as there; with int8 activations too."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from transformers import GPTNeoXForCausalLM

from engine.hf_points import points_seen_by
from engine.nano import HELDOUT, is_refused, nano_files
from engine.toys import IDS, distance, hf_logits, toy_model, write_gguf
from pythia_gguf.choices import ACTIVATIONS, CACHES
from pythia_gguf.engine.model import Model, load
from pythia_gguf.engine.points import EMBED, END_POINTS, LAYER_POINTS, Hook, HookPlace, point_names
from pythia_gguf.engine.protocol import Part
from pythia_gguf.errors import NotFiniteError, UsageError

# As in test_parity.py: what float32 sums lose beside float64.
MOST = 1e-4
KINDS = {
    "parallel, erf": {},
    "parallel, tanh": {"act": "gelu_new"},
    "sequential, erf": {"parallel": False},
    "sequential, tanh": {"parallel": False, "act": "gelu_new"},
}
PLACES = (EMBED, *LAYER_POINTS, *END_POINTS)


@cache
def toys(kind: str) -> tuple[GPTNeoXForCausalLM, Model]:
    """The same weights in transformers and here: F32, keys and values too."""
    hf = toy_model(**KINDS[kind])
    with TemporaryDirectory() as folder:
        path = write_gguf(Path(folder) / "toy.gguf", hf)
        return hf, load(path, gelu=kind.split()[1], cache="f32", threads=2)


@cache
def nano(activations: str = "int8", cached: str = "f16") -> Model:
    return load(nano_files()["Q4_K_M"], threads=2, activations=activations, cache=cached, gelu="erf")


def nano_ids(first: int = 0, n: int = 60) -> list[int]:
    return nano().tokenizer.encode(HELDOUT.read_text("utf-8")[:3000])[first : first + n]


def run(model: Model, ids: list[int], hooks: dict[str, Hook]) -> np.ndarray:
    session = model.sequences(n_context=len(ids))
    return session.step([Part(seq=session.open(), ids=ids, n_wanted=len(ids))], hooks=hooks)


def captured(model: Model, ids: list[int]) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}
    run(model, ids, {"*": lambda x, place: seen.__setitem__(place.name, x.copy())})
    return seen


def at(place: str, layer: int) -> str:
    """A point of a layer, or the only one of its kind."""
    return f"blocks.{layer}.{place}" if place in LAYER_POINTS else place


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_is_that_of_transformers(kind: str):
    hf, model = toys(kind)
    theirs: dict[str, np.ndarray] = {}
    with points_seen_by(lambda name, x: theirs.__setitem__(name, x.double().numpy().copy()), hf):
        hf_logits(hf, IDS)
    ours = captured(model, IDS)
    assert ours.keys() == theirs.keys() == set(point_names(model.config))
    for name, x in ours.items():
        assert x.shape == theirs[name].shape, name
        seen = np.isfinite(x)
        assert (seen == (theirs[name] > -1e30)).all(), name
        assert distance(x[seen], theirs[name][seen]) <= MOST, name
    same = {("embed", "blocks.0.resid_pre")}
    for i in range(model.config.n_layers):
        same.add((f"blocks.{i}.resid_post", f"blocks.{i + 1}.resid_pre"))
        if model.config.parallel_residual:  # both norms read the same rows
            same.add((f"blocks.{i}.ln1.scale", f"blocks.{i}.ln2.scale"))
    for a, b in itertools.combinations(ours, 2):  # the tolerance tells any two points apart
        if ours[a].shape == ours[b].shape and {(a, b), (b, a)}.isdisjoint(same):
            seen = np.isfinite(ours[a]) & np.isfinite(ours[b])
            assert distance(ours[a][seen], ours[b][seen]) > 10 * MOST, (a, b)


def changed_by(place: str, x: np.ndarray) -> np.ndarray:
    """Other values that may stand there; for attention where each token may look."""
    if place == "attn.pattern":
        x = x * np.linspace(1, 2, x.shape[-1], dtype=x.dtype)
        return x / x.sum(-1, keepdims=True)
    if place == "attn.scores":
        return x * 0.5 + np.linspace(0, 1, x.shape[-1], dtype=x.dtype)
    return x * 1.25 + np.linspace(0, 0.5, x.shape[-1], dtype=x.dtype)


@pytest.mark.parametrize("kind", ["parallel, erf", "sequential, tanh"])
@pytest.mark.parametrize("place", PLACES)
def test_change_of_any_point_is_that_of_transformers(place: str, kind: str):
    hf, model = toys(kind)
    point = at(place, 1)
    if place == "resid_mid" and kind.startswith("parallel"):
        with pytest.raises(UsageError, match=r"no point blocks\.1\.resid_mid\. Did you mean .*blocks\.1\.resid_pre"):
            run(model, IDS, {point: lambda x, place: None})
        return

    def change(name: str, x: torch.Tensor) -> None:
        if name == point:
            x.copy_(torch.from_numpy(changed_by(place, x.numpy())))

    plain, before = model.logits(IDS), hf_logits(hf, IDS)
    with points_seen_by(change, hf):
        theirs = hf_logits(hf, IDS)
    ours = run(model, IDS, {point: lambda x, _: changed_by(place, x)})
    assert distance(theirs, before) > 10 * MOST
    assert distance(ours, theirs) <= MOST

    def in_place(x: np.ndarray, _: HookPlace) -> None:
        x[...] = changed_by(place, x)

    assert np.array_equal(run(model, IDS, {point: in_place}), ours)
    assert np.array_equal(model.logits(IDS), plain)


@pytest.mark.parametrize("cached", [c for c in CACHES if c != "auto"])
@pytest.mark.parametrize("activations", ACTIVATIONS)
def test_looking_changes_no_bit(activations: str, cached: str):
    """At all points or at one kind of them, and their own values put back; in slices and several sequences too."""
    if is_refused(nano_files()["Q4_K_M"], activations):
        return
    model, ids = nano(activations, cached), nano_ids(0, 230)
    plain = model.logits(ids)
    assert np.array_equal(run(model, ids, {"*": lambda x, place: x.copy()}), plain)
    for place in PLACES:
        if place != "resid_mid":
            assert np.array_equal(run(model, ids[:40], {at(place, 2): lambda x, _: None}), plain[:40]), place
    session = model.sequences(n_sequences=2, n_context=100)
    first, second = session.open(), session.open()
    for i, n in ((0, 1), (1, 15), (16, 2)):
        parts = [Part(seq=first, ids=ids[i : i + n]), Part(seq=second, ids=ids[50 + i : 50 + i + n])]
        hooks = {"blocks.*": lambda x, place: None} if n != 15 else None
        rows = session.step(parts, hooks=hooks)
    assert np.array_equal(rows[0], plain[17])


# A change of the first is that of the others: all that follows is made of them alone, row by row.
SAME_CHANGES = (
    (("mlp_out",), ("mlp.post",), ("mlp.pre",), ("ln2.normalized",)),
    (("attn_out",), ("attn.z",), ("attn.rot_q", "attn.rot_k", "attn.v"), ("attn.q", "attn.k", "attn.v")),
    (("attn_out",), ("attn.scores", "attn.v"), ("ln1.normalized",)),
)


@pytest.mark.parametrize("cached", ["f16", "f32"])
@pytest.mark.parametrize("same", SAME_CHANGES, ids=lambda same: same[0][0] + ", " + same[1][0])
def test_change_with_int8_activations_is_quantized_and_kept(same: tuple[tuple[str, ...], ...], cached: str):
    """Values of another text, put in at one point of a layer or at another, give the same bits.

    So does what comes later, where the change went through keys and values that are kept.
    """
    model, ids, others = nano(cached=cached), nano_ids(), nano_ids(100)
    given, plain = captured(model, others), model.logits(ids)
    found, later = {}, {}
    for places in same:
        session = model.sequences(n_context=len(ids) + 4)
        seq = session.open()
        hooks = {at(place, 1): lambda x, where: given[where.name] for place in places}
        found[places] = session.step([Part(seq=seq, ids=ids, n_wanted=len(ids))], hooks=hooks)
        later[places] = session.step([Part(seq=seq, ids=others[:4], n_wanted=4)])
    assert np.abs(found[same[0]] - plain).max() > 0.1
    assert all(np.array_equal(rows, found[same[0]]) for rows in found.values())
    kept = [rows for places, rows in later.items() if {"attn.k", "attn.rot_k", "ln1.normalized"} & set(places)]
    assert all(np.array_equal(rows, kept[0]) for rows in kept)
    if kept:
        assert not np.array_equal(kept[0], later[same[0]])


def test_embeddings_of_another_text_are_that_text():
    """With int8 activations; the residual stream of any layer, too, is all that follows, but for what was kept."""
    model, ids, others = nano(), nano_ids(), nano_ids(100)
    given, logits = captured(model, others), model.logits(others)
    for point in ("embed", "blocks.3.resid_pre", "blocks.5.resid_post", "ln_final.normalized", "logits"):
        assert np.array_equal(run(model, ids, {point: lambda x, where: given[where.name]}), logits), point


def test_pattern_that_is_changed_for_one_token_leaves_the_others_bits():
    model, ids = nano(), nano_ids()
    plain = captured(model, ids)["blocks.0.attn.z"]

    def first_only(x: np.ndarray, place: HookPlace) -> None:
        x[7, 2] = 0
        x[7, 2, 0] = 1

    seen: dict[str, np.ndarray] = {}
    hooks: dict[str, Hook] = {
        "blocks.0.attn.pattern": first_only,
        "blocks.0.attn.[zv]": lambda x, where: seen.__setitem__(where.name, x.copy()),
    }
    run(model, ids, hooks)
    z, v = seen["blocks.0.attn.z"], seen["blocks.0.attn.v"]
    # All attention on the first position gives its value, as float16 keeps it.
    assert np.array_equal(z[7, 2], v[0, 2].astype(np.float16).astype(np.float32))
    z[7, 2] = plain[7, 2]
    assert np.array_equal(z, plain)


def test_a_hook_is_told_the_token_of_each_row():
    model, ids = nano(), nano_ids(0, 200)
    session = model.sequences(n_sequences=2, n_context=250)
    first, second = session.open(), session.open()
    session.step([Part(seq=second, ids=ids[:9], n_wanted=0)])
    seen: dict[str, list[tuple[int, int]]] = {"embed": [], "logits": []}

    def look(x: np.ndarray, place: HookPlace) -> None:
        assert len(x) == len(place.seqs) == len(place.positions)
        seen[place.name] += zip(place.seqs.tolist(), place.positions.tolist(), strict=True)

    parts = [Part(seq=first, ids=ids, n_wanted=2), Part(seq=second, ids=[5, 6, 7])]
    session.step(parts, hooks={"embed": look, "logits": look})
    assert seen["embed"] == [*((first, i) for i in range(200)), (second, 9), (second, 10), (second, 11)]
    assert seen["logits"] == [(first, 198), (first, 199), (second, 11)]
    seen["logits"].clear()
    session.step(
        [Part(seq=second, ids=[1], n_wanted=0)], hooks={"logits": look, "blocks.0.attn_out": lambda x, p: None}
    )
    assert seen["logits"] == []


def test_what_cannot_be_is_refused():
    model, ids = nano(), nano_ids(0, 8)
    with pytest.raises(UsageError, match=r"no point blocks\.3\.mlp\.past\. Did you mean blocks\.3\.mlp\.post"):
        run(model, ids, {"blocks.3.mlp.past": lambda x, place: None})
    for point in ("blocks.0.attn.scores", "blocks.0.attn.pattern"):
        with pytest.raises(UsageError, match=rf"{point} can be changed only where a token may look"):
            run(model, ids, {point: lambda x, place: np.ones_like(x)})
    with pytest.raises(ValueError, match=r"embed: a hook gave an array \(256,\), expected \(8, 256\)"):
        run(model, ids, {"embed": lambda x, place: x[0]})
    with pytest.raises(NotFiniteError, match=r"blocks\.1\.resid_pre: infinity or NaN at position 3 "):
        run(model, ids, {"blocks.0.mlp_out": lambda x, place: np.where(place.positions == 3, np.inf, x.T).T,
                         "blocks.1.resid_pre": lambda x, place: None})  # fmt: skip


def test_steps_without_hooks_are_one_call_of_the_same_ops():
    model, ids = nano(), nano_ids(0, 8)
    session = model.sequences(n_context=40)
    seq, calls, workers_run = session.open(), [], model.runner.workers.run

    def counted(ops: np.ndarray, first: int, last: int, *rest: object) -> None:
        calls.append((ops[first:last, 0].tolist(), first))
        workers_run(ops, first, last, *rest)  # type: ignore[arg-type]

    model.runner.workers.run = counted  # type: ignore[method-assign]
    try:
        for hooks in (None, {"blocks.*": lambda x, place: None}, {}):
            session.step([Part(seq=seq, ids=ids)], hooks=hooks)
    finally:
        model.runner.workers.run = workers_run  # type: ignore[method-assign]
    assert calls[0] == calls[-1]
    assert calls[0][1] == 0
    assert len(calls) > 50  # stops at the points
