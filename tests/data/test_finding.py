"""Every place of any tokens, and every row of training that shows it, are those of a search that tries all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from data import neox
from pythia_gguf.data.finding import Finder, Sight
from pythia_gguf.data.index import make_index
from pythia_gguf.data.order import make_order, samples_for

Documents = list[list[int]]
EOD = 9


@st.composite
def documents(draw: st.DrawFn) -> Documents:
    """Few letters, so that much is there again and again; some end with one of their own, some are empty."""
    letters = st.lists(st.integers(0, draw(st.integers(0, 3))), max_size=14)
    made = draw(st.lists(letters, min_size=1, max_size=9).filter(any))
    ends = draw(st.sampled_from(["all", "some", "none"]))
    made = [d + [EOD] if ends == "all" or (ends == "some" and i % 2) else d for i, d in enumerate(made)]
    return made + made[: draw(st.integers(0, 2))]


def places(made: Documents, ids: list[int]) -> list[tuple[int, int, int]]:
    """(position, document, offset) of each place, by trying all."""
    found, at = [], 0
    for d, document in enumerate(made):
        found += [(at + o, d, o) for o in range(len(document)) if document[o : o + len(ids)] == ids]
        at += len(document)
    return found


def rows_of_stream(made: Documents, context: int, n_samples: int, seed: int) -> list[list[tuple[int, int, int]]]:
    """Rows in the order of training as (place in the stream of documents, document, offset)."""
    order, _, shuffle = neox.order([len(d) for d in made], context, n_samples, seed)
    stream = [(place, d, offset) for place, d in enumerate(order) for offset in range(len(made[d]))]
    return [stream[k * context : (k + 1) * context + 1] for k in shuffle]


def sights(made: Documents, ids: list[int], rows: list[list[tuple[int, int, int]]], n_places: int) -> list[tuple]:
    """(row, start, tokens, document, offset) by looking for each token in each row.

    Where no row has all, rows count that have what no other has, or more of it.
    """
    found = []
    for place in range(n_places):
        for _, d, o in places(made, ids):
            wanted = {(place, d, o + i) for i in range(len(ids))}
            shown = {r: wanted & set(row) for r, row in enumerate(rows) if wanted & set(row)}
            whole = {r: s for r, s in shown.items() if s == wanted}
            best = whole or {r: s for r, s in shown.items() if not any(s < other for other in shown.values())}
            found += [(r, min(map(rows[r].index, s)), len(s), d, o) for r, s in best.items()]
    return sorted(found)


def as_told(sight: Sight) -> tuple:
    return sight.row, sight.start, sight.n_tokens, sight.hit.document, sight.hit.offset


@given(data=st.data(), made=documents(), part=st.sampled_from([None, 1, 7, 20]), context=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_places_and_sights_are_those_of_trying_all(tmp_path_factory, data, made, part, context):
    prefix = neox.write_corpus(tmp_path_factory.mktemp("find") / "c", made)
    make_index(prefix, part_tokens=part)
    steps, batch, seed = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 99))
    order = make_order(prefix, steps=steps, batch=batch, context=context, seed=seed)
    rows = rows_of_stream(made, context, samples_for(steps, batch), seed)
    with Finder(prefix, batch=batch) as finder:
        assert finder.n_epochs == order.n_epochs
        for _ in range(6):
            document = data.draw(st.sampled_from(made))
            first = data.draw(st.integers(0, len(document)))
            ids = document[first : first + data.draw(st.integers(1, 8))]
            ids += data.draw(st.lists(st.integers(0, 3), min_size=not ids, max_size=2))
            there = finder.occurrences(ids, 10**6)
            assert [(h.position, h.document, h.offset) for h in there.hits] == places(made, ids)
            assert finder.count(ids) == there.n_hits == len(there.hits)
            expected = sights(made, ids, rows, order.n_epochs * len(made))
            assert sorted(map(as_told, there.sights)) == expected
            assert [s.row for s in there.sights] == sorted(s.row for s in there.sights)
            assert all(s.step == s.row // batch + 1 and s.is_whole == (s.n_tokens == len(ids)) for s in there.sights)
            assert (there.n_whole, there.n_cut) == (n := sum(s[2] == len(ids) for s in expected), len(expected) - n)
